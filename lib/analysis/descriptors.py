"""A trained network on two splits -> its object descriptors, and from these its depth space."""

import math
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from ..config import Config
from ..datasets import KITTI, build_dataset
from ..datasets.augmentation import Augmentation
from ..datasets.samples import inference_loader, training_loader
from ..datasets.targets import encode_targets
from ..engine.device import choose_device
from ..engine.network import load_network
from ..engine.step import jitter_colors, to_channels_last
from ..losses.quasi_isometric import object_descriptors
from ..models import build_model
from ..models.centernet3d import CenterNet3D
from ..models.folding import fold_batch_norm
from ..ops.depth import decode_depth
from ..system.commands import show_progress
from .depth_report import DepthSpace, measure_depth_space
from .depth_space import BoundCounts, DescribedObjects, all_pairs


@dataclass(frozen=True)
class Subject:
    """One network, and the frames to measure it on."""

    name: str
    checkpoint: Path
    config: Config
    model: CenterNet3D
    frames: KITTI  # held out
    fit_frames: KITTI  # to fit read-outs on


def load_subject(name: str, checkpoint: Path, config: Config, split: str, fit_split: str) -> Subject:
    """Raises FileNotFoundError or ValueError for a checkpoint or data that are missing, broken, or do not fit."""
    model = load_network(checkpoint, build_model, config).model
    frames, fit_frames = build_dataset(config, split), build_dataset(config, fit_split)
    shared = set(frames.frame_ids) & set(fit_frames.frame_ids)
    if shared:
        where = f"{frames.root}/ImageSets: --split {split} and --fit-split {fit_split}"
        advice = "read-outs need other frames than those that they are fitted on"
        raise ValueError(f"{where} share {len(shared)} frames, the first is {min(shared)}; {advice}")
    return Subject(name, checkpoint, config, model, frames, fit_frames)


def measure_subject(subject: Subject, max_frames: int | None = None) -> DepthSpace:
    """Run the network on both splits and on training batches, and measure its depth space.

    ``max_frames``: at most so many frames of each split, evenly spaced. Raises ValueError as :func:`describe_objects`.
    """
    device = choose_device(subject.config.trainer.gpu_ids)
    folded = fold_batch_norm(subject.model)
    held_out = describe_objects(subject, folded, subject.frames, max_frames, device)
    fit = describe_objects(subject, folded, subject.fit_frames, max_frames, device)
    batches = count_training_batches(subject, max_frames, device)
    config = subject.config
    return measure_depth_space(subject.name, held_out, fit, batches, config.general, config.dataset.batch_size)


@torch.no_grad()
def describe_objects(
    subject: Subject, model: CenterNet3D, frames: KITTI, max_frames: int | None, device: torch.device
) -> DescribedObjects:
    """The trainable objects of a split: cells as in training, without augmentation; the network as in evaluation.

    Raises ValueError where there is no object, or the network's outputs are not finite.
    """
    to_channels_last(model, device)
    config = subject.config.dataset
    n_frames = min(len(frames), max_frames or len(frames))
    chosen = np.linspace(0, len(frames) - 1, n_frames).round().astype(int).tolist()
    loader = inference_loader(frames, subject.config, indices=chosen)
    columns: list[tuple[np.ndarray, ...]] = []
    done = 0
    for batch in show_progress(loader, f"{subject.name}, {frames.split}", unit="batch", leave=False):
        targets = [
            encode_targets(frames.annotation(k)[1], info.calibration, Augmentation.identity(info.image_size), config)
            for k, info in zip(chosen[done : done + len(batch.frames)], batch.frames, strict=True)
        ]
        indices = torch.from_numpy(np.stack([t["indices"] for t in targets])).to(device)
        mask = np.stack([t["mask_3d"] for t in targets])
        depths = np.stack([t["depth"][:, 0] for t in targets])[mask]
        features = model.extract_features(batch.images.to(device, non_blocking=True))
        descriptors = object_descriptors(features, indices).cpu().numpy()[mask]
        head_depths = decode_depth(model.object_heads(features, indices)["depth"][..., 0]).cpu().numpy()[mask]
        columns.append((descriptors, depths, done + mask.nonzero()[0], head_depths))
        done += len(batch.frames)
    objects = DescribedObjects(n_frames, *map(np.concatenate, zip(*columns, strict=True)))
    if not len(objects.depths):
        what = f"the {n_frames} frames of split {frames.split!r} have no object to describe"
        raise ValueError(f"{frames.label_dir}: {what}; dataset.writelist is {', '.join(config.writelist)}")
    if not (np.isfinite(objects.descriptors).all() and np.isfinite(objects.head_depths).all()):
        raise ValueError(f"{subject.checkpoint}: its network's outputs on split {frames.split!r} are not finite")
    return objects


@torch.no_grad()
def count_training_batches(subject: Subject, max_frames: int | None, device: torch.device) -> list[BoundCounts]:
    """The batches of the first epoch as the loss gets them: augmented, without the objects of cropped samples, and
    BatchNorm with each batch's own statistics (of one process).

    Changes the model: its running statistics are updated.
    """
    model, frames, general, config = subject.model, subject.fit_frames, subject.config.general, subject.config.dataset
    to_channels_last(model, device)
    model.train()
    number = math.ceil(min(len(frames), max_frames or len(frames)) / config.batch_size)
    batches = islice(training_loader(frames, subject.config), number)
    counts = []
    for batch in show_progress(batches, f"{subject.name}, training batches", number, "batch", leave=False):
        if not batch.frames:  # all unreadable (dataset.on_bad_frame: skip)
            continue
        images = batch.images.to(device, non_blocking=True)
        if config.color_jitter:
            images = jitter_colors(images, config.color_jitter, general.random_seed, 0, batch.frames)
        features = model.extract_features(images)
        descriptors = object_descriptors(features, batch.targets["indices"].to(device)).cpu().numpy()
        mask = batch.targets["mask_3d"].numpy()
        pairs = all_pairs(descriptors[mask], batch.targets["depth"].numpy()[mask][:, 0])
        counts.append(pairs.count(general))
    return counts
