"""Frames -> samples -> batches: augmentation, encoding, collation, and the order of an epoch."""

import math
import multiprocessing
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..config import Config
from ..ops.affine import STRIDE
from ..structures import FrameInfo
from ..system.machine import available_cores
from .augmentation import Augmentation
from .kitti import KITTI, Frame
from .loader import WatchedLoader, collate_shared, init_worker, require_resources
from .targets import empty_targets, encode_targets


class Sample(NamedTuple):
    """One image."""

    image: Tensor
    """(3, H, W) uint8, RGB, network resolution"""
    targets: dict[str, Tensor]
    """see ``encode_targets``; with object-wise depth also obj_depth (1, h, w) [m]; empty at inference"""
    info: FrameInfo


class Unreadable(NamedTuple):
    """A frame that cannot be read, with ``dataset.on_bad_frame: skip``."""

    frame_id: str
    reason: str


class Batch(NamedTuple):
    """Images and targets of B samples, stacked: (B, ..). B may be 0."""

    images: Tensor
    targets: dict[str, Tensor]
    frames: list[FrameInfo]
    skipped: list[Unreadable]  # frames of this batch that cannot be read


class TrainingSamples(Dataset[Sample | Unreadable]):
    """Augmented frames with targets. A key is (epoch, index): the same key always gives the same sample."""

    def __init__(self, frames: KITTI, config: Config) -> None:
        self.frames, self.config = frames, config

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, key: tuple[int, int]) -> Sample | Unreadable:
        epoch, index = key
        try:
            frame = self.frames.read(index)
        except (ValueError, OSError) as error:
            if self.config.dataset.on_bad_frame == "stop":
                raise
            return Unreadable(self.frames.frame_ids[index], str(error))
        return self._sample(epoch, frame)

    def empty_batch(self) -> Batch:
        """A batch without images, for a rank whose share of a batch is empty."""
        width, height = self.config.dataset.resolution
        width_map, height_map = width // STRIDE, height // STRIDE
        empty = empty_targets(width_map, height_map, self.config.dataset)
        targets = {name: torch.from_numpy(value)[None][:0] for name, value in empty.items()}
        if self.frames.has_obj_depth:
            targets["obj_depth"] = torch.zeros(0, 1, height_map, width_map)
        return Batch(torch.zeros(0, 3, height, width, dtype=torch.uint8), targets, [], [])

    def collate(self, samples: Sequence[Sample | Unreadable]) -> Batch:
        """Stack the readable samples."""
        readable = [s for s in samples if isinstance(s, Sample)]
        batch = collate(readable) if readable else self.empty_batch()
        return batch._replace(skipped=[s for s in samples if isinstance(s, Unreadable)])

    def _sample(self, epoch: int, frame: Frame) -> Sample:
        c = self.config.dataset
        rng = np.random.default_rng((self.config.general.random_seed, epoch, zlib.crc32(frame.frame_id.encode())))
        size = _size(frame)
        augmentation = Augmentation.sample(rng, size, c.random_flip, c.random_crop, c.scale, c.shift)
        encoded = encode_targets(frame.objects, frame.calibration, augmentation, c)
        targets = {name: torch.from_numpy(value) for name, value in encoded.items()}
        if frame.obj_depth is not None:
            depth_map = augmentation.depth_map(frame.obj_depth, c.resolution, STRIDE)
            targets["obj_depth"] = torch.from_numpy(depth_map)[None]
        return Sample(_image(frame, augmentation, c.resolution), targets, _info(frame))


class InferenceSamples(Dataset[Sample]):
    """Whole images at network resolution, without augmentation and targets."""

    def __init__(self, frames: KITTI, resolution: tuple[int, int]) -> None:
        self.frames, self.resolution = frames, resolution

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError for a frame that cannot be read: results must be complete."""
        frame = self.frames.read(index)
        return Sample(_image(frame, Augmentation.identity(_size(frame)), self.resolution), {}, _info(frame))


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """One rank's shares of an epoch's batches, as keys (epoch, index).

    The order of the frames depends on seed and epoch alone. Each batch of ``batch_size`` is divided into ``ranks``
    consecutive shares whose sizes differ by at most one; shares of the last batch may be empty.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.ranks = length, batch_size, seed, rank, ranks
        self.epoch, self.frames_done = 0, 0

    def set_epoch(self, epoch: int, frames_done: int = 0) -> None:
        """Set the epoch of the next iteration, and its frames consumed so far, unreadable ones included."""
        self.epoch, self.frames_done = epoch, frames_done

    def __len__(self) -> int:
        return max(0, math.ceil((self.length - self.frames_done) / self.batch_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.length)
        for start in range(self.frames_done, self.length, self.batch_size):
            batch = order[start : start + self.batch_size]
            yield [(self.epoch, int(index)) for index in np.array_split(batch, self.ranks)[self.rank]]


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack images and targets of at least one sample."""
    targets = {name: torch.stack([s.targets[name] for s in samples]) for name in samples[0].targets}
    images = torch.stack([s.image.permute(1, 2, 0) for s in samples]).permute(0, 3, 1, 2)  # channels last in memory
    return Batch(images, targets, [s.info for s in samples], [])


def training_loader(frames: KITTI, config: Config, rank: int = 0, ranks: int = 1) -> WatchedLoader:
    """The rank's shares of an epoch's batches. ``loader.batch_sampler.set_epoch(epoch)`` sets the epoch."""
    samples = TrainingSamples(frames, config)
    seed, batch_size = config.general.random_seed, config.dataset.batch_size
    return _loader(samples, config, EpochBatches(len(samples), batch_size, seed, rank, ranks), samples.collate, ranks)


def inference_loader(
    frames: KITTI, config: Config, rank: int = 0, ranks: int = 1, indices: Sequence[int] | None = None
) -> WatchedLoader:
    """Every ``ranks``-th frame from ``rank`` on, in the split's order; ``indices``: only these frames of the split."""
    chosen = range(len(frames)) if indices is None else indices
    own, size = chosen[rank::ranks], -(-config.dataset.batch_size // ranks)
    batches = [list(own[start : start + size]) for start in range(0, len(own), size)]
    return _loader(InferenceSamples(frames, config.dataset.resolution), config, batches, collate, ranks)


def _loader(
    samples: TrainingSamples | InferenceSamples, config: Config, batches: Any, collate_fn: Any, ranks: int
) -> WatchedLoader:
    workers = min(-(-config.dataset.num_workers // ranks), available_cores())
    cached = workers > 0 and samples.frames.cache is not None
    if cached and "fork" not in multiprocessing.get_all_start_methods():
        raise ValueError("dataset.cache=ram needs forked workers, not available on this system; set num_workers: 0")
    if workers:
        samples_of_rank = -(-config.dataset.batch_size // ranks)
        images, targets, *_ = TrainingSamples(samples.frames, config).empty_batch()
        tensors = [images, *(targets.values() if isinstance(samples, TrainingSamples) else ())]
        size = sum(math.prod(tensor.shape[1:]) * tensor.element_size() for tensor in tensors)
        require_resources(workers, samples_of_rank * size, len(tensors), ranks)
    return WatchedLoader(
        samples,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=partial(collate_shared, collate_fn) if workers else collate_fn,
        pin_memory=torch.cuda.is_available() and len(config.trainer.gpu_ids) > 0,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if cached else None,
        worker_init_fn=init_worker,
        # otherwise the loader draws from torch's global generator, at times that depend on workers and epoch
        generator=torch.Generator(),
    )


def _size(frame: Frame) -> tuple[int, int]:
    return frame.image.shape[1], frame.image.shape[0]


def _info(frame: Frame) -> FrameInfo:
    return FrameInfo(frame.frame_id, _size(frame), frame.calibration)


def _image(frame: Frame, augmentation: Augmentation, resolution: tuple[int, int]) -> Tensor:
    return torch.from_numpy(augmentation.image(frame.image, resolution)).permute(2, 0, 1)
