"""All keys of a configuration: frozen dataclasses, one class per YAML section, one docstring per key.

A value that is not possible is a ValueError at construction; it names the key, the value and what is accepted.
"""

import re
from dataclasses import asdict, dataclass, field, fields, replace

from ..evaluation.reading import canonical_names
from .checks import require, require_minimum, require_one_of, require_split
from .dataset import CLASS_NAMES, Dataset

LOWER_BOUNDS = ("official", "corrected")


@dataclass(frozen=True)
class General:
    random_seed: int = 444
    """seed of the initial weights, the order of frames, and the augmentation"""
    exp_name: str = ""
    """name of the run, which writes to outputs/<exp_name>/ in the working directory; default: that of the YAML file"""
    dataroot: str = "data/KITTI"
    """folder that contains ImageSets/ and training/; relative to the project root"""
    qi: bool = False
    """DDML: quasi-isometric loss on the object descriptors"""
    K: float = 1.5
    """quasi-isometric loss: factor between depth and feature distances at the two bounds, >= 1"""
    B: float = 0.5
    """quasi-isometric loss: additive slack of the two bounds, >= 0"""
    rad: float = 10.0
    """quasi-isometric loss: largest depth difference [m] of a pair of objects"""
    T: float = 10.0
    """quasi-isometric loss: temperature; a constant in the official code"""
    qi_lower_bound: str = "official"
    """'official': as in the official code; 'corrected': pairs below the lower bound are pushed apart"""
    qi_fit_scale: bool = False
    """true: feature distances are multiplied by the factor for which they fit the depth distances of a batch's pairs
    best; false: they are not, as in the official code"""
    obj_depth: bool = False
    """DDML: auxiliary head that predicts the object-wise depth map, in training only"""

    def __post_init__(self) -> None:
        require(0 <= self.random_seed < 2**62, "general.random_seed", self.random_seed, "in 0 .. 2^62 - 1")
        plain = re.fullmatch(r"[^/\\\x00-\x1f]*", self.exp_name) and self.exp_name not in (".", "..")
        require(bool(plain), "general.exp_name", self.exp_name, "a plain folder name, without / and not . or ..")
        require_minimum("general", self, K=1, B=0)
        require(self.rad > 0, "general.rad", self.rad, "> 0")
        require(self.T > 0, "general.T", self.T, "> 0")
        require_one_of("general.qi_lower_bound", self.qi_lower_bound, LOWER_BOUNDS)


@dataclass(frozen=True)
class Model:
    backbone: str = "dla34"
    """name of a backbone in `BACKBONES` of `lib/models`, or timm/<name> for a network of the package timm"""
    pretrained: bool | str = True
    """initial weights of the backbone: true (ImageNet, from torch's cache or downloaded), false (random) or a file"""


@dataclass(frozen=True)
class Optimizer:
    type: str = "adam"
    """'adam', 'adamw' or 'sgd'"""
    lr: float = 0.00125
    """learning rate after the warm-up"""
    weight_decay: float = 0.00001
    """weight decay of all parameters whose name does not contain 'bias'"""
    momentum: float = 0.9
    """momentum of 'sgd'"""
    clip_grad_norm: float = 0.0
    """gradients are scaled down to this norm (all parameters together) if theirs is larger; 0: they are not"""

    def __post_init__(self) -> None:
        require_one_of("optimizer.type", self.type.lower(), ("adam", "adamw", "sgd"))
        require(0 < self.lr <= 1000, "optimizer.lr", self.lr, "in (0, 1000]")
        require_minimum("optimizer", self, weight_decay=0, clip_grad_norm=0)
        require(0 <= self.momentum < 1, "optimizer.momentum", self.momentum, "in [0, 1)")


@dataclass(frozen=True)
class LrScheduler:
    type: str = "step"
    """after the warm-up: 'step' decays by decay_rate at decay_list; 'cosine' falls to 0 at the end of the last epoch"""
    warmup: bool = True
    """cosine warm-up from 1e-5 to optimizer.lr over the first epochs"""
    warmup_epochs: int = 5
    """epochs of the warm-up; a constant in the official code"""
    decay_rate: float = 0.1
    """factor of the learning rate at each decay"""
    decay_list: tuple[int, ...] = (90, 120)
    """epochs at which the rate decays, counted from the end of the warm-up as in the official code"""

    def __post_init__(self) -> None:
        require_one_of("lr_scheduler.type", self.type, ("step", "cosine"))
        require_minimum("lr_scheduler", self, warmup_epochs=1)
        require(0 < self.decay_rate <= 1, "lr_scheduler.decay_rate", self.decay_rate, "in (0, 1]")
        require(all(e >= 0 for e in self.decay_list), "lr_scheduler.decay_list", list(self.decay_list), "all >= 0")


@dataclass(frozen=True)
class Losses:
    """Weights of the terms, by their names in `LOSSES` of `lib/losses`. A term of weight 0 is still computed."""

    heatmap: float = 1.0
    """weight of the focal loss of the heatmap"""
    offset_2d: float = 1.0
    """weight of the L1 loss of the offset from a cell to the centre of the 2D box"""
    size_2d: float = 1.0
    """weight of the L1 loss of the 2D size"""
    depth: float = 1.0
    """weight of the Laplacian loss of the depth"""
    offset_3d: float = 1.0
    """weight of the L1 loss of the offset from a cell to the projected 3D centre"""
    size_3d: float = 1.0
    """weight of the dimension-aware L1 loss of the 3D size"""
    heading: float = 1.0
    """weight of the loss of the heading: cross entropy of the bin, L1 of the residual"""
    quasi_isometric: float = 1.0
    """weight of the quasi-isometric loss (general.qi), in addition to the constant factor 0.5 of the official code"""
    obj_depth: float = 1.0
    """weight of the Laplacian loss of the object-wise depth map (general.obj_depth)"""

    def __post_init__(self) -> None:
        require_minimum("losses", self, **{each.name: 0 for each in fields(self)})
        require(any(asdict(self).values()), "losses", "only 0", "above 0 for at least one term")


@dataclass(frozen=True)
class Trainer:
    max_epoch: int = 140
    """number of epochs"""
    gpu_ids: tuple[int, ...] = (0,)
    """one process (rank) per GPU: '0, 1', 0 or [0, 1]; [] trains on the CPU; without CUDA all ranks run on the CPU"""
    sync_bn: bool = False
    """BatchNorm statistics over the images of all ranks (GPUs only); false: of each rank, as in the official code"""
    save_frequency: int = 10
    """epochs between two checkpoint_epoch_N.pth; checkpoint_last.pth is written after every epoch"""
    save_interval_minutes: float = 30.0
    """minutes without a checkpoint after which checkpoint_last.pth is written inside an epoch; 0: only after epochs"""
    keep_last: int = 0
    """number of checkpoint_epoch_N.pth to keep, older ones are deleted; 0 keeps all"""
    eval_frequency: int = 0
    """epochs between two evaluations during training; the best 3D AP40 (moderate) of Car, else of the first class of
    writelist, is kept as checkpoint_best.pth; 0: one evaluation after the last epoch, and no checkpoint_best.pth"""
    resume_model: str = ""
    """checkpoint to resume from: weights, optimizer and position in the run; the same as --resume PATH"""
    pretrain_model: str = ""
    """checkpoint to start from: weights only; of other classes, all but the heatmap's last layer; without one of
    the object heads, all but that head"""
    report: bool = True
    """write report.html after training and evaluation"""
    amp: bool | str = False
    """false, or 'bf16': autocast of the forward pass in training; evaluation always uses float32"""
    accumulate: int = 1
    """to save memory, a batch is computed in this number of parts, one after the other, and their gradients are added
    up; a part's losses are means over its own objects, weighted by its number of images; BatchNorm and the
    quasi-isometric loss see one part at a time"""
    ema: float = 0.0
    """decay of an exponential moving average of the weights, which is evaluated and is `model_state` of checkpoints;
    0.999 averages about the last 1000 steps. It starts at the weights that the run starts or resumes with; BatchNorm's
    statistics are not averaged; 0: off"""
    compile: bool = False
    """torch.compile of the network in training, equal up to rounding; needs a C++ compiler (CPU) or Triton (GPU)"""

    def __post_init__(self) -> None:
        require_minimum("trainer", self, max_epoch=1, save_frequency=1, keep_last=0, eval_frequency=0)
        require_minimum("trainer", self, save_interval_minutes=0, accumulate=1)
        require(all(i >= 0 for i in self.gpu_ids), "trainer.gpu_ids", list(self.gpu_ids), "ids >= 0")
        require(self.amp in (False, "bf16"), "trainer.amp", self.amp, "false or 'bf16'")
        require(0 <= self.ema < 1, "trainer.ema", self.ema, "in [0, 1)")


@dataclass(frozen=True)
class Tester:
    split: str = "val"
    """evaluates ImageSets/<split>.txt; 'test' has no labels: result files are written, AP is not computed"""
    mode: str = "single"
    """'single': evaluate one checkpoint; 'all': evaluate every checkpoint in checkpoints_dir"""
    checkpoint: str = ""
    """checkpoint for 'single', searched in outputs/<exp_name>/ and its checkpoints/; default: the newest of the run"""
    checkpoints_dir: str = "checkpoints"
    """folder for 'all', below outputs/<exp_name>/"""
    threshold: float = 0.2
    """smallest heatmap value of a detection"""
    topk: int = 50
    """largest number of detections of an image"""
    images: int = 4
    """number of frames, evenly spaced over the split, that are drawn to results/<checkpoint>/<split>/images/: labels
    beside the detections with scores of 0.2 or more, or so many of the best as there are labels, if that is more"""
    overlaps: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """{class: [official, loose]}: smallest overlap of a match for classes of your own; default [0.5, 0.25]"""
    map_to_image: str = "auto"
    """conversion of rows of the feature map to rows of the image. 'official': by the ratio of the heights, right only
    where image and input have the same width / height; 'exact': the inverse of the map from image to input; 'auto':
    'official' where the two ratios differ by less than 1 % (KITTI at 1280 x 384), else 'exact'"""

    def __post_init__(self) -> None:
        require_split("tester.split", self.split)
        require_one_of("tester.map_to_image", self.map_to_image, ("auto", "official", "exact"))
        require_one_of("tester.mode", self.mode, ("single", "all"))
        require(0 <= self.threshold <= 1, "tester.threshold", self.threshold, "in [0, 1]")
        require(1 <= self.topk <= 1000, "tester.topk", self.topk, "in 1..1000")
        require_minimum("tester", self, images=0)
        for name, pair in self.overlaps.items():
            own = name not in CLASS_NAMES
            require(own, "tester.overlaps", name, f"given for other classes than {', '.join(CLASS_NAMES)}")
            fits = len(pair) == 2 and 0 <= pair[1] <= pair[0] < 1
            require(fits, f"tester.overlaps.{name}", list(pair), "[official, loose], 0 <= loose <= official < 1")

    @property
    def own_overlaps(self) -> dict[str, tuple[float, float]]:
        """``overlaps`` as {class: (official, loose)}."""
        return {name: (official, loose) for name, (official, loose) in self.overlaps.items()}


@dataclass(frozen=True)
class Config:
    """A whole configuration. It is never modified."""

    general: General = field(default_factory=General)
    dataset: Dataset = field(default_factory=Dataset)
    model: Model = field(default_factory=Model)
    optimizer: Optimizer = field(default_factory=Optimizer)
    lr_scheduler: LrScheduler = field(default_factory=LrScheduler)
    losses: Losses = field(default_factory=Losses)
    trainer: Trainer = field(default_factory=Trainer)
    tester: Tester = field(default_factory=Tester)

    def __post_init__(self) -> None:
        names = canonical_names(self.dataset.class_names)
        overlaps = {names.get(name.lower(), name): pair for name, pair in self.tester.overlaps.items()}
        parts, batch = self.trainer.accumulate, self.dataset.batch_size
        require(parts <= batch, "trainer.accumulate", parts, f"at most dataset.batch_size ({batch})")
        require(len(overlaps) == len(self.tester.overlaps), "tester.overlaps", self.tester.overlaps, "without repeats")
        for name in overlaps:
            require_one_of("tester.overlaps", name, self.dataset.class_names)
        object.__setattr__(self, "tester", replace(self.tester, overlaps=overlaps))
