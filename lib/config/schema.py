"""What can be configured: frozen, validated dataclasses, one class a YAML section, one docstring a key.

An impossible value is a ``ValueError`` that names the key, the value and what would be accepted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .checks import one_of, require
from .dataset import CLASS_NAMES, Dataset


@dataclass(frozen=True)
class General:
    random_seed: int = 444
    """seeds initial weights, the order of frames and every augmentation"""
    exp_name: str = ""
    """results go to outputs/<exp_name>/ below the working directory; default: the YAML file's name"""
    dataroot: str = "data/KITTI"
    """folder with ImageSets/ and training/; relative to the project root"""
    qi: bool = False
    """quasi-isometric loss on object descriptors (DDML)"""
    K: float = 1.5
    """quasi-isometry: slope of the bounds, >= 1"""
    B: float = 0.5
    """quasi-isometry: slack of the bounds, >= 0"""
    rad: float = 10.0
    """quasi-isometry: only pairs whose depths differ by at most this [m] (the paper's epsilon)"""
    T: float = 10.0
    """quasi-isometry: temperature; the official code has it as a constant"""
    qi_weight: float = 1.0
    """weight of the quasi-isometric loss; the official code has none"""
    qi_lower_bound: str = "official"
    """'official': as published; 'corrected': pairs closer than the lower bound are pushed apart"""
    obj_depth: bool = False
    """auxiliary head that regresses the object-wise depth map (DDML); training only"""
    obj_depth_weight: float = 1.0
    """weight of the object-wise depth loss"""

    def __post_init__(self) -> None:
        require(0 <= self.random_seed < 2**62, "general.random_seed", self.random_seed, "in 0 .. 2^62 - 1")
        plain = re.fullmatch(r"[^/\\\x00-\x1f]*", self.exp_name) and self.exp_name not in (".", "..")
        require(bool(plain), "general.exp_name", self.exp_name, "a plain folder name, without / and not . or ..")
        require(self.K >= 1, "general.K", self.K, ">= 1")
        require(self.B >= 0, "general.B", self.B, ">= 0")
        require(self.rad > 0, "general.rad", self.rad, "> 0")
        require(self.T > 0, "general.T", self.T, "> 0")
        require(self.qi_weight >= 0, "general.qi_weight", self.qi_weight, ">= 0")
        require(self.obj_depth_weight >= 0, "general.obj_depth_weight", self.obj_depth_weight, ">= 0")
        one_of("general.qi_lower_bound", self.qi_lower_bound, ("official", "corrected"))


@dataclass(frozen=True)
class Model:
    type: str = "centernet3d"
    """'centernet3d' is the only one"""
    backbone: str = "dla34"
    """a row of lib/models/dla.py's table"""
    neck: str = "DLAUp"
    """'DLAUp' is the only one"""
    num_class: int = 0
    """heatmap channels; 0: as many as dataset.class_names has, which is the only number that fits"""
    pretrained: bool | str = True
    """ImageNet weights for the backbone: true (cache or download), false (from scratch), or a local file"""

    def __post_init__(self) -> None:
        one_of("model.type", self.type.lower(), ("centernet3d",))
        one_of("model.neck", self.neck, ("DLAUp",))


@dataclass(frozen=True)
class Optimizer:
    type: str = "adam"
    """'adam', 'adamw' or 'sgd'"""
    lr: float = 0.00125
    """learning rate after the warm-up"""
    weight_decay: float = 0.00001
    """for all parameters whose name does not contain 'bias'"""
    momentum: float = 0.9
    """for sgd"""

    def __post_init__(self) -> None:
        one_of("optimizer.type", self.type.lower(), ("adam", "adamw", "sgd"))
        require(self.lr > 0, "optimizer.lr", self.lr, "> 0")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, ">= 0")
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "in [0, 1)")


@dataclass(frozen=True)
class LrScheduler:
    warmup: bool = True
    """cosine warm-up from 1e-5 over the first epochs"""
    warmup_epochs: int = 5
    """its length; the official code has 5 as a constant"""
    decay_rate: float = 0.1
    """factor at each decay"""
    decay_list: tuple[int, ...] = (90, 120)
    """epochs of decay, counted from the warm-up's end as in the official code"""

    def __post_init__(self) -> None:
        require(self.warmup_epochs >= 1, "lr_scheduler.warmup_epochs", self.warmup_epochs, ">= 1")
        require(0 < self.decay_rate <= 1, "lr_scheduler.decay_rate", self.decay_rate, "in (0, 1]")
        require(all(e >= 0 for e in self.decay_list), "lr_scheduler.decay_list", list(self.decay_list), "all >= 0")


@dataclass(frozen=True)
class Trainer:
    max_epoch: int = 140
    """epochs to train"""
    gpu_ids: tuple[int, ...] = (0,)
    """'0, 1', 0 or [0, 1]; several ids start one process each, which share every batch; [] is the CPU, and without
    CUDA the processes run there"""
    sync_bn: bool = False
    """several processes: BatchNorm statistics over the whole batch; false: over each process's share, as the official
    DataParallel run has it"""
    save_frequency: int = 10
    """epochs between checkpoint_epoch_N.pth; checkpoint_last.pth is written every epoch"""
    save_interval_minutes: float = 30.0
    """checkpoint_last.pth inside an epoch, after so many minutes without one; 0: only at the ends of epochs"""
    keep_last: int = 0
    """how many checkpoint_epoch_N.pth to keep, older ones are deleted; 0: all"""
    eval_frequency: int = 0
    """epochs between evaluations during training, which keep checkpoint_best.pth; 0: only after the last"""
    resume_model: str = ""
    """checkpoint to go on from: weights, optimizer and place in the run; --resume PATH says the same"""
    pretrain_model: str = ""
    """checkpoint to start from: weights only"""
    report: bool = True
    """write report.html, one page with all that the run has to show, when a training and its evaluation are done"""
    amp: bool | str = False
    """false (off) or 'bf16': autocast of the training forward pass; evaluation is always in float32"""
    compile: bool = False
    """torch.compile of the network in training: minutes at the start for faster steps, equal up to rounding; needs a
    C++ compiler on the CPU, and Triton on a GPU"""

    def __post_init__(self) -> None:
        require(self.max_epoch >= 1, "trainer.max_epoch", self.max_epoch, ">= 1")
        require(all(i >= 0 for i in self.gpu_ids), "trainer.gpu_ids", list(self.gpu_ids), "ids >= 0")
        require(self.save_frequency >= 1, "trainer.save_frequency", self.save_frequency, ">= 1")
        require(self.save_interval_minutes >= 0, "trainer.save_interval_minutes", self.save_interval_minutes, ">= 0")
        require(self.keep_last >= 0, "trainer.keep_last", self.keep_last, ">= 0")
        require(self.eval_frequency >= 0, "trainer.eval_frequency", self.eval_frequency, ">= 0")
        require(self.amp in (False, "bf16"), "trainer.amp", self.amp, "false or 'bf16'")


@dataclass(frozen=True)
class Tester:
    type: str = "kitti"
    """'kitti' is the only one"""
    split: str = "val"
    """ImageSets/<split>.txt; 'test' writes result files and computes no AP"""
    mode: str = "single"
    """'single': one checkpoint; 'all': every checkpoint of checkpoints_dir"""
    checkpoint: str = ""
    """for 'single'; looked for in outputs/<exp_name>/ and its checkpoints/; default: the newest of the run"""
    checkpoints_dir: str = "checkpoints"
    """for 'all'; below outputs/<exp_name>/"""
    threshold: float = 0.2
    """lowest heatmap value of a detection"""
    topk: int = 50
    """most detections of an image"""
    images: int = 4
    """evaluated frames, evenly spaced over the split, that are drawn to results/<checkpoint>/<split>/images/: labels
    beside detections with a score of 0.2 or more; 0: none"""
    overlaps: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """{class: [official, loose]}: least overlap of a match, for classes that are not KITTI's; default [0.5, 0.25]"""
    map_to_image: str = "official"
    """'official': map rows to image rows by height ratio, right only where width / height of image and input
    agree (KITTI at 1280 x 384: within 0.7 %); 'exact': the inverse of the input's own map"""

    def __post_init__(self) -> None:
        one_of("tester.type", self.type.lower(), ("kitti",))
        one_of("tester.split", self.split, ("train", "val", "trainval", "test"))
        one_of("tester.map_to_image", self.map_to_image, ("official", "exact"))
        one_of("tester.mode", self.mode, ("single", "all"))
        require(0 <= self.threshold <= 1, "tester.threshold", self.threshold, "in [0, 1]")
        require(1 <= self.topk <= 1000, "tester.topk", self.topk, "in 1..1000")
        require(self.images >= 0, "tester.images", self.images, ">= 0")
        for name, pair in self.overlaps.items():
            require(name not in CLASS_NAMES, "tester.overlaps", name, "a class of your own: KITTI's three have KITTI's")
            fits = len(pair) == 2 and 0 <= pair[1] <= pair[0] < 1
            require(fits, f"tester.overlaps.{name}", list(pair), "[official, loose], 0 <= loose <= official < 1")


@dataclass(frozen=True)
class Config:
    """The whole configuration; nothing ever writes to it."""

    general: General = field(default_factory=General)
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    lr_scheduler: LrScheduler = field(default_factory=LrScheduler)
    trainer: Trainer = field(default_factory=Trainer)
    tester: Tester = field(default_factory=Tester)

    def __post_init__(self) -> None:
        given, classes = self.model.num_class, len(self.dataset.class_names)
        require(given in (0, classes), "model.num_class", given, f"0 or {classes}, as dataset.class_names has it")
        for name in self.tester.overlaps:
            one_of("tester.overlaps", name, self.dataset.class_names)
