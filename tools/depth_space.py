#!/usr/bin/env python3
"""How far a trained network's object descriptors are arranged by depth: pairs against the bounds of DDML's loss, how
often that loss is not 0, rank correlation, and depth read from descriptors. One checkpoint, or two side by side.

    python tools/depth_space.py --config x.yaml --checkpoint outputs/x/checkpoints/checkpoint_epoch_140.pth --out DIR

writes DIR/depth_space.json and DIR/depth_space.png and prints a table. docs/depth_space.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.analysis.depth_report import (
    FINE_BANDS,
    SHARES,
    depth_space_table,
    error_by_distance,
    measure_depth_space,
    without_nan,
)
from lib.analysis.depth_space import BoundCounts, Bounds, DescribedObjects, Pairs, all_pairs, principal_components
from lib.config import Config, Dataset, find_dataroot, load_config
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.samples import Batch, inference_loader, training_loader
from lib.datasets.targets import encode_targets
from lib.engine.device import choose_device
from lib.engine.network import load_network
from lib.engine.step import jitter_colors, to_channels_last
from lib.losses.quasi_isometric import object_descriptors
from lib.models import build_model
from lib.models.centernet3d import CenterNet3D
from lib.models.folding import fold_batch_norm
from lib.ops.depth import decode_depth
from lib.structures import FrameInfo
from lib.system.commands import progress_interval, run_command, setup_logging
from lib.system.files import atomic_write
from lib.visualization.depth_space import READOUT_STYLES, DepthSpace, PairCloud, draw_depth_spaces

FIGURES, IMAGE = "depth_space.json", "depth_space.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="X.yaml", help="the experiment; its K, B and rad are used")
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="C.pth")
    parser.add_argument("--checkpoint2", type=Path, metavar="D.pth", help="a second one, to compare with")
    parser.add_argument("--config2", metavar="Y.yaml", help="its experiment; default: that of the first")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="what to call them; default: run/file")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for depth_space.json and .png")
    parser.add_argument("--split", default="val", help="frames to measure on: ImageSets/<split>.txt; default: val")
    parser.add_argument("--fit-split", default="train", help="frames to learn read-outs from; default: train")
    parser.add_argument("--max-frames", type=int, metavar="N", help="at most so many of each split, evenly chosen")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier call")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of both YAMLs"
    )
    args = parser.parse_args(argv)
    return run_command(lambda: depth_space(args))


def depth_space(args: argparse.Namespace) -> int:
    """Raises FileNotFoundError or ValueError for what is missing or does not fit."""
    setup_logging()
    check(args)
    paths = [args.checkpoint] + ([args.checkpoint2] if args.checkpoint2 else [])
    names = args.names or [default_name(path) for path in paths]
    if len(names) != len(paths):
        raise ValueError(f"--names: expected {len(paths)}, one for each checkpoint, got {len(names)}")
    configs = [load_config(path, args.set) for path in (args.config, args.config2 or args.config)]
    # all of them before the first is measured: no minutes of work before an error in the second
    subjects = [read_subject(*parts, args) for parts in zip(names, paths, configs, strict=False)]
    measured = [measure(subject, args.max_frames) for subject in subjects]
    models = [model for model, _ in measured]
    image = io.BytesIO()
    draw_depth_spaces([space for _, space in measured], image)
    report = without_nan({"split": args.split, "fit_split": args.fit_split, "models": models})
    for name, content in (
        (FIGURES, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()),
        (IMAGE, image.getvalue()),
    ):
        with atomic_write(args.out / name) as file:
            file.write(content)
    print(f"descriptors of the objects of split {args.split}; depth read-outs learned on split {args.fit_split}\n")
    print(depth_space_table(models))
    print(f"\nfigures: {args.out / FIGURES}\nimage: {args.out / IMAGE}")
    return 0


def check(args: argparse.Namespace) -> None:
    """Raises ValueError for options that do not fit."""
    if args.config2 and not args.checkpoint2:
        raise ValueError("--config2 goes with --checkpoint2, which is not given")
    if args.max_frames is not None and args.max_frames < 1:
        raise ValueError(f"--max-frames must be >= 1, got {args.max_frames}")
    for option, split in (("--split", args.split), ("--fit-split", args.fit_split)):
        if split == "test":
            raise ValueError(f"{option}: the split 'test' has no labels; choose train, val, or another with labels")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder; {args.out} is a file")
    for name in (FIGURES, IMAGE):
        if (args.out / name).exists() and not args.overwrite:
            raise ValueError(f"{args.out / name} exists already; --overwrite replaces it")


def default_name(checkpoint: Path) -> str:
    """outputs/x/checkpoints/checkpoint_epoch_140.pth -> 'x/checkpoint_epoch_140'."""
    folder = checkpoint.resolve().parent
    return f"{(folder.parent if folder.name == 'checkpoints' else folder).name}/{checkpoint.stem}"


@dataclass(frozen=True)
class Subject:
    """One network, and the frames to measure it on."""

    name: str
    checkpoint: Path
    config: Config
    model: CenterNet3D
    frames: KITTI
    """held out"""
    fit_frames: KITTI
    """to learn read-outs from"""


def read_subject(name: str, checkpoint: Path, config: Config, args: argparse.Namespace) -> Subject:
    """Raises FileNotFoundError or ValueError for a checkpoint or data that are missing, broken, or do not fit."""
    model = load_network(checkpoint, build_model, config).model
    root = find_dataroot(config)
    frames, fit_frames = KITTI(root, args.split), KITTI(root, args.fit_split)
    shared = set(frames.frame_ids) & set(fit_frames.frame_ids)
    if shared:
        raise ValueError(
            f"{root}/ImageSets: --split {args.split} and --fit-split {args.fit_split} share {len(shared)} frames, "
            f"the first is {min(shared)}; depth must be read on other frames than it was learned from"
        )
    return Subject(name, checkpoint, config, model, frames, fit_frames)


def measure(subject: Subject, max_frames: int | None) -> tuple[dict[str, Any], DepthSpace]:
    """Run the network on both splits and on training batches; the figures, and what is drawn of them."""
    general, batch_size = subject.config.general, subject.config.dataset.batch_size
    device = choose_device(subject.config.trainer.gpu_ids)
    folded = fold_batch_norm(subject.model)
    held_out, fit = (
        describe_objects(subject, folded, frames, max_frames, device) for frames in (subject.frames, subject.fit_frames)
    )
    batches = count_training_batches(subject, max_frames, device)
    bounds = Bounds(general.K, general.B, general.rad)
    figures, pairs = measure_depth_space(held_out, fit, batches, bounds, batch_size, general.random_seed)
    figures = {"name": subject.name, "checkpoint": str(subject.checkpoint)} | figures
    return figures, to_draw(figures, pairs, held_out)


@torch.no_grad()
def describe_objects(
    subject: Subject, model: CenterNet3D, frames: KITTI, max_frames: int | None, device: torch.device
) -> DescribedObjects:
    """The trainable objects of a split: cells as in training, without augmentation; the network as in evaluation.

    Raises ValueError where there is no object, or the network's outputs are not finite.
    """
    to_channels_last(model, device)
    config = subject.config.dataset
    numbers = np.linspace(0, len(frames) - 1, min(len(frames), max_frames or len(frames))).round().astype(int).tolist()
    loader = inference_loader(frames, subject.config, numbers=numbers)
    descriptors, depths, head_depths, places = [], [], [], []
    done = 0
    for images, _, infos, _ in progress(loader, f"{subject.name}, {frames.split}", len(loader)):
        targets = [targets_of(frames, info, config) for info in infos]
        indices = torch.from_numpy(np.stack([t["indices"] for t in targets])).to(device)
        mask = np.stack([t["mask_3d"] for t in targets])
        features = model.extract_features(images.to(device, non_blocking=True))
        descriptors.append(object_descriptors(features, indices).cpu().numpy()[mask])
        depths.append(np.stack([t["depth"][:, 0] for t in targets])[mask])
        head_depths.append(decode_depth(model.object_heads(features, indices)["depth"][..., 0]).cpu().numpy()[mask])
        places.append(done + mask.nonzero()[0])
        done += len(infos)
    columns = map(np.concatenate, (descriptors, depths, places, head_depths))
    objects = DescribedObjects(done, *columns)
    if not len(objects.depths):
        raise ValueError(
            f"{frames.label_dir}: the {done} frames of split {frames.split!r} have no object to describe; "
            f"dataset.writelist is {', '.join(config.writelist)}"
        )
    if not (np.isfinite(objects.descriptors).all() and np.isfinite(objects.head_depths).all()):
        raise ValueError(f"{subject.checkpoint}: its network's outputs on split {frames.split!r} are not finite")
    return objects


def targets_of(frames: KITTI, info: FrameInfo, config: Dataset) -> dict[str, np.ndarray]:
    """Training targets of the whole image."""
    texts = frames.texts[frames.number[info.frame_id]]
    assert not isinstance(texts, Exception), "a split that allows no bad frames has labels for every frame"
    return encode_targets(texts[1], info.calibration, Augmentation.identity(info.image_size), config)


@torch.no_grad()
def count_training_batches(subject: Subject, max_frames: int | None, device: torch.device) -> list[BoundCounts]:
    """The batches of the first epoch as the loss gets them: augmented, without the objects of cropped samples, and
    BatchNorm with each batch's own statistics (of one process).

    Changes the model: its running statistics follow.
    """
    model, frames, general, config = subject.model, subject.fit_frames, subject.config.general, subject.config.dataset
    to_channels_last(model, device)
    model.train()
    bounds = Bounds(general.K, general.B, general.rad)
    number = math.ceil(min(len(frames), max_frames or len(frames)) / config.batch_size)
    batches = islice(training_loader(frames, subject.config), number)
    counts = []
    for batch in progress(batches, f"{subject.name}, training batches", number):
        if not batch.frames:  # none could be read (dataset.on_bad_frame: skip)
            continue
        images = batch.images.to(device, non_blocking=True)
        if config.color_jitter:
            images = jitter_colors(images, config.color_jitter, general.random_seed, 0, batch.frames)
        features = model.extract_features(images)
        descriptors = object_descriptors(features, batch.targets["indices"].to(device)).cpu().numpy()
        mask = batch.targets["mask_3d"].numpy()
        counts.append(all_pairs(descriptors[mask], batch.targets["depth"].numpy()[mask][:, 0]).count(bounds))
    return counts


def progress(batches: Iterable[Batch], title: str, number: int) -> Iterable[Batch]:
    """With a bar."""
    return tqdm(batches, title, number, leave=False, unit="batch", mininterval=progress_interval())


def to_draw(figures: dict[str, Any], pairs: dict[str, Pairs], objects: DescribedObjects) -> DepthSpace:
    """What the image shows of one model."""
    within_frames, within_batches = (
        PairCloud(
            title,
            pairs[key].depth_distance,
            pairs[key].feature_distance,
            {label: figures["pairs"][key][share] for label, share in SHARES},
            figures["pairs"][key]["spearman_within_rad"],
        )
        for key, title in (("within_frames", "pairs within a frame"), ("within_batches", "pairs within a random batch"))
    )
    components, component_shares = principal_components(objects.descriptors, objects.depths)
    return DepthSpace(
        name=figures["name"],
        bounds=(figures["bounds"]["K"], figures["bounds"]["B"], figures["bounds"]["rad"]),
        clouds=(within_frames, within_batches),
        readout_errors={name: error_by_distance(figures, name) for name in READOUT_STYLES},
        band_edges=np.array([near for near, _ in FINE_BANDS] + [FINE_BANDS[-1][1]]),
        components=components,
        component_shares=component_shares,
        depths=objects.depths,
    )


if __name__ == "__main__":
    sys.exit(main())
