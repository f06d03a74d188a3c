"""Frames -> batches: augmentation, encoding, collation, and the order of an epoch."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lib.config import Config
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI, Frame
from lib.datasets.targets import encode_targets
from lib.ops.feature_map import STRIDE, resize_align_corners
from lib.ops.machine import available_cores
from lib.structures import FrameInfo


class Sample(NamedTuple):
    """One picture, or a batch of them after :func:`collate`."""

    image: Tensor
    """(3, H, W) uint8, RGB, network resolution"""
    targets: dict[str, Tensor]
    """see ``encode_targets``, and obj_depth (1, h, w) [m] where the frame has a map; empty at inference"""
    info: Any
    """FrameInfo; a list of them in a batch"""


class TrainingSamples(Dataset[Sample]):
    """Augmented, encoded frames. A key is (epoch, index): the same key gives the same sample, whatever came before."""

    def __init__(self, frames: KITTI, config: Config) -> None:
        self.frames, self.config = frames, config

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        frame, c = self.frames.read(index), self.config.dataset
        rng = np.random.default_rng((self.config.general.random_seed, epoch, zlib.crc32(frame.frame_id.encode())))
        size = _size(frame)
        augmentation = Augmentation.sample(rng, size, c.random_flip, c.random_crop, c.scale, c.shift)
        encoded = encode_targets(frame.objects, frame.calibration, augmentation, c)
        targets = {name: torch.from_numpy(value) for name, value in encoded.items()}
        if frame.obj_depth is not None:
            width, height = c.resolution
            depth_net = torch.from_numpy(augmentation.depth_map(frame.obj_depth, c.resolution))
            targets["obj_depth"] = resize_align_corners(depth_net[None, None], height // STRIDE, width // STRIDE)[0]
        return Sample(_image(frame, augmentation, c.resolution), targets, _info(frame))


class InferenceSamples(Dataset[Sample]):
    """Whole pictures at network resolution, without targets."""

    def __init__(self, frames: KITTI, resolution: tuple[int, int]) -> None:
        self.frames, self.resolution = frames, resolution

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        frame = self.frames.read(index)
        return Sample(_image(frame, Augmentation.identity(_size(frame)), self.resolution), {}, _info(frame))


class EpochSampler(Sampler[tuple[int, int]]):
    """Yields (epoch, index) in an order that depends on the seed and the epoch alone."""

    def __init__(self, length: int, seed: int) -> None:
        self.length, self.seed, self.epoch = length, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        return iter([(self.epoch, int(index)) for index in order])


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack pictures and targets; infos become a list."""
    targets = {name: torch.stack([s.targets[name] for s in samples]) for name in samples[0].targets}
    return Sample(torch.stack([s.image for s in samples]), targets, [s.info for s in samples])


def training_loader(frames: KITTI, config: Config) -> DataLoader[Sample]:
    """Batches of one epoch; ``loader.sampler.set_epoch(e)`` chooses which."""
    samples = TrainingSamples(frames, config)
    sampler = EpochSampler(len(samples), config.general.random_seed)
    return _loader(samples, config, sampler)


def inference_loader(frames: KITTI, config: Config) -> DataLoader[Sample]:
    """Batches in the split's order."""
    return _loader(InferenceSamples(frames, config.dataset.resolution), config, None)


def _loader(samples: Dataset[Sample], config: Config, sampler: Sampler[Any] | None) -> DataLoader[Sample]:
    workers = min(config.dataset.num_workers, available_cores())
    return DataLoader(
        samples,
        batch_size=config.dataset.batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available() and len(config.trainer.gpu_ids) > 0,
        persistent_workers=workers > 0,
        worker_init_fn=_init_worker,
        # otherwise the loader draws from torch's global generator, more or less often depending on workers and epoch
        generator=torch.Generator(),
    )


def _init_worker(_: int) -> None:
    cv2.setNumThreads(0)  # the workers themselves are the parallelism


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]


def _info(frame: Frame) -> FrameInfo:
    return FrameInfo(frame.frame_id, _size(frame), frame.calibration)


def _image(frame: Frame, augmentation: Augmentation, resolution: tuple[int, int]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(augmentation.image(frame.image, resolution).transpose(2, 0, 1)))
