"""A trained detector for images without labels: from a notebook, and for ``tools/predict.py``.

    from lib.prediction import load_detector
    detector = load_detector("outputs/x/checkpoints/checkpoint_epoch_140.pth")
    objects = detector(image_rgb, P2)
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config
from ..datasets.augmentation import Augmentation
from ..engine.device import choose_device
from ..engine.inference import InferenceBatch, detect
from ..engine.network import load_network
from ..engine.step import to_channels_last
from ..models import build_model
from ..models.folding import fold_batch_norm
from ..ops.affine import ratio_difference, resolution_for
from ..ops.feature_map import cells_to_image
from ..postprocess import DecodeSettings
from ..structures import Calibration, FrameInfo, Object3d, focal_net
from ..structures.camera import KITTI_P2, KITTI_SIZE
from ..system.machine import keep_freed_memory
from ..system.threads import map_ahead

SAME_FOCAL = 0.05
"""focal lengths that differ by less than this share count as one: KITTI's own cameras differ by 2 %"""
_OFFICIAL_RATIO = 0.01
"""up to this difference of ratios the official map of rows is as good as the exact one"""
_LARGEST_INPUT = 1 << 23
"""pixels, about 17 times KITTI's"""
_IMAGE_BYTES = 1 << 26
"""of the original images in a batch"""


class Detection(NamedTuple):
    """What was found in one image."""

    frame: FrameInfo
    image: np.ndarray
    """the original (H, W, 3) uint8, RGB"""
    objects: list[Object3d]


@dataclass(frozen=True)
class Detector:
    """Change a setting with ``dataclasses.replace(detector, threshold=0.1)``; the network is shared then."""

    model: nn.Module
    config: Config
    device: torch.device
    focal_net: float
    """focal length of the training images at network resolution [px]"""
    focal_net_known: bool
    """whether the checkpoint says so; otherwise it is KITTI's"""
    threshold: float
    """lowest heatmap value of a detection"""
    resolution: tuple[int, int] | None = None
    """network input (width, height) [px] for all images; None: as configured, of a height that fits the image"""
    correct_depth: bool = True
    """multiply depths by the ratio of this camera's focal length to that of the training"""
    max_batch: int | None = None
    """images that go through the network together; None: as many as in training"""

    def __call__(self, image_rgb: np.ndarray, P2: np.ndarray | Calibration) -> list[Object3d]:
        """The objects in an image (H, W, 3) uint8, RGB, seen by a camera ``P2`` (3, 4), best heatmap value first.

        Raises ValueError for anything else.
        """
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or not image_rgb.size:
            raise ValueError(f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
        calibration = P2 if isinstance(P2, Calibration) else Calibration(P2)
        frame = self.frame("image", (image_rgb.shape[1], image_rgb.shape[0]), calibration)
        (found,) = self.stream([frame], lambda _: image_rgb)
        return found.objects

    @torch.no_grad()
    def heatmap(self, image_rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The heatmap (classes, h, w), 0..1, of an image (H, W, 3) uint8, RGB; and (2, 3), cells -> its pixels."""
        size = (image_rgb.shape[1], image_rgb.shape[0])
        augmentation, resolution = Augmentation.identity(size), self.settings(size).resolution
        image = torch.from_numpy(augmentation.image(image_rgb, resolution)).permute(2, 0, 1)[None]
        to_channels_last(self.model, self.device)
        logits = self.model.eval()(image.to(self.device))["heatmap"]
        return logits[0].sigmoid().cpu().numpy(), cells_to_image(augmentation.to_input(resolution))

    def frame(self, frame_id: str, image_size: tuple[int, int], calibration: Calibration) -> FrameInfo:
        """What decoding needs to know about an image of ``image_size`` (width, height): see ``depth_scale`` there."""
        ratio = self.focal_ratio(image_size, calibration)
        same = not self.correct_depth or abs(ratio - 1) <= SAME_FOCAL
        return FrameInfo(frame_id, image_size, calibration, 1.0 if same else ratio)

    def focal_ratio(self, image_size: tuple[int, int], calibration: Calibration) -> float:
        """A camera's focal length over that of the training images, both at network resolution."""
        width = self.settings(image_size).resolution[0]
        return focal_net(calibration, image_size[0], width) / self.focal_net

    def settings(self, image_size: tuple[int, int]) -> DecodeSettings:
        """How an image of this size goes into the network and comes out of it.

        Raises ValueError for one whose input would be too large.
        """
        dataset, tester = self.config.dataset, self.config.tester
        resolution = self.resolution or resolution_for(image_size, dataset.resolution)
        if resolution[0] * resolution[1] > _LARGEST_INPUT:
            raise ValueError(
                f"an image of {image_size[0]} x {image_size[1]} would need a network input of "
                f"{resolution[0]} x {resolution[1]}; give a smaller one (--resolution)"
            )
        official = tester.map_to_image == "official" and ratio_difference(image_size, resolution) <= _OFFICIAL_RATIO
        sizes = dataset.known_sizes if dataset.meanshape else None
        return DecodeSettings(dataset.class_names, resolution, self.threshold, sizes, official)

    def stream(
        self, frames: Iterable[FrameInfo], read: Callable[[FrameInfo], np.ndarray | None], threads: int = 1
    ) -> Generator[Detection, None, None]:
        """Detections of many images, in order, while the next ones are being read; only a few are held at a time.

        ``read`` is called in ``threads`` and gives a frame's image (H, W, 3) uint8, RGB, or None where there are no
        more. Neighbours that share a network input go through the network together.
        """

        def load(frame: FrameInfo) -> _Loaded | None:
            original = read(frame)
            if original is None:
                return None
            resolution = self.settings(frame.image_size).resolution
            image = Augmentation.identity(frame.image_size).image(original, resolution)
            return frame, original, torch.from_numpy(image)

        most = self.max_batch or self.config.dataset.batch_size
        with contextlib.closing(map_ahead(load, frames, threads, ahead=max(threads, min(most, 16)))) as loaded:
            there = itertools.takewhile(lambda item: item is not None, loaded)
            batches = self._batches(item for item in there if item is not None)
            for batch, detections in detect(self.model, batches, self.config.tester.topk, self.device):
                yield from map(Detection, batch.frames, batch.originals, detections)

    def _batches(self, loaded: Iterable[_Loaded]) -> Iterator[InferenceBatch]:
        items: list[_Loaded] = []
        for item in loaded:
            size, first = item[0].image_size, (items or [item])[0][0].image_size
            if items and (len(items) >= self._batch_size(size) or self.way_in(first) != self.way_in(size)):
                yield self._batch(items)
                items = []
            items.append(item)
        if items:
            yield self._batch(items)

    def _batch(self, items: Sequence[_Loaded]) -> InferenceBatch:
        frames, originals, images = zip(*items, strict=True)
        stacked = torch.stack(images).permute(0, 3, 1, 2)  # channels last in memory
        return InferenceBatch(stacked, frames, self.settings(frames[0].image_size), originals)

    def way_in(self, image_size: tuple[int, int]) -> tuple[int, int, bool]:
        """What images of one batch have in common: network input (width, height), and how rows are mapped back."""
        settings = self.settings(image_size)
        return (*settings.resolution, settings.official_vertical)

    def _batch_size(self, image_size: tuple[int, int]) -> int:
        """As in training where the input is no larger than there, so that results are those of an evaluation."""
        most, (width, height) = self.max_batch or self.config.dataset.batch_size, self.config.dataset.resolution
        own_width, own_height = self.settings(image_size).resolution
        fitting = most * width * height // (own_width * own_height)
        return max(1, min(most, fitting, _IMAGE_BYTES // (3 * image_size[0] * image_size[1])))


_Loaded = tuple[FrameInfo, np.ndarray, Tensor]
"""frame, its image, and that at network resolution (H, W, 3) uint8"""


def load_detector(
    checkpoint: str | Path, config: str | Path | Config | None = None, device: torch.device | str | None = None
) -> Detector:
    """A detector from a checkpoint, ready for inference: without the obj_depth head, BatchNorm folded.

    Args:
        config: only for checkpoints that have none, such as official ones; a YAML file or its content.
        device: default: the first GPU, or the CPU where there is none.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong.
    """
    path = Path(checkpoint)
    config, model, state = load_network(path, build_model, config)
    camera = state.get("camera")
    known = camera.get("focal_net") if isinstance(camera, dict) else None
    focal = known or KITTI_P2[0][0] * config.dataset.resolution[0] / KITTI_SIZE[0]
    place = choose_device((0,)) if device is None else torch.device(device)
    if place.type == "cpu":
        keep_freed_memory()
    return Detector(fold_batch_norm(model), config, place, focal, bool(known), config.tester.threshold)
