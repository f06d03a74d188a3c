"""A trained detector for images without labels: for notebooks, and for ``tools/predict.py``.

    from lib.prediction import load_detector
    detector = load_detector("outputs/x/checkpoints/checkpoint_epoch_140.pth")
    objects = detector(image_rgb, P2)
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Config
from ..datasets.augmentation import Augmentation
from ..engine.device import choose_device
from ..engine.inference import InferenceBatch, decode_settings, detect
from ..engine.network import load_network
from ..engine.step import to_channels_last
from ..models import build_model
from ..models.folding import fold_batch_norm
from ..ops.affine import resolution_for
from ..ops.feature_map import cells_to_image
from ..postprocess import DecodeSettings
from ..structures import Calibration, FrameInfo, Object3d, focal_net
from ..structures.camera import KITTI_P2, KITTI_SIZE
from ..system.machine import keep_freed_memory
from ..system.threads import map_ahead
from ..visualization.overlay import draw_heatmap

SAME_FOCAL = 0.05  # relative difference up to which focal lengths are taken as equal: KITTI's own differ by 2 %
_MAX_INPUT_PIXELS = 1 << 23  # about 17 times KITTI's
_MAX_IMAGE_BYTES = 1 << 26  # total size of the original images in a batch


class Detection(NamedTuple):
    """The detections of one image."""

    frame: FrameInfo
    image: np.ndarray  # the original (H, W, 3) uint8, RGB
    objects: list[Object3d]


@dataclass(frozen=True)
class Detector:
    """``dataclasses.replace(detector, threshold=0.1)`` changes a setting; both detectors share the network."""

    model: nn.Module
    config: Config
    device: torch.device
    focal_net: float  # focal length of the training images at network resolution [px]
    focal_net_known: bool  # whether the checkpoint stores ``focal_net``; otherwise it is KITTI's
    threshold: float  # lowest heatmap value of a detection
    # network input (width, height) [px] of all images; None: the configured width, and a height that fits the image
    resolution: tuple[int, int] | None = None
    correct_depth: bool = True  # multiply depths by the ratio of this camera's focal length to that of the training
    max_batch: int | None = None  # images per batch; None: as many as in training

    def __repr__(self) -> str:
        settings = f"{', '.join(self.config.dataset.class_names)}; heatmap values of {self.threshold:g} or more"
        return f"<Detector: {self.config.model.backbone} on {self.device}; {settings}>"

    def __call__(self, image_rgb: np.ndarray, P2: np.ndarray | Calibration) -> list[Object3d]:
        """The objects in an image (H, W, 3) uint8, RGB, taken with a camera ``P2`` (3, 4), highest heatmap value first.

        Raises ValueError for other shapes and types.
        """
        if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8 or not image_rgb.size:
            raise ValueError(f"expected an RGB image (H, W, 3) uint8, got {image_rgb.shape} {image_rgb.dtype}")
        calibration = P2 if isinstance(P2, Calibration) else Calibration(P2)
        frame = self.frame("image", (image_rgb.shape[1], image_rgb.shape[0]), calibration)
        (detection,) = self.stream([frame], lambda _: image_rgb)
        return detection.objects

    @torch.no_grad()
    def draw_heatmap(self, image_rgb: np.ndarray) -> np.ndarray:
        """An image (H, W, 3) uint8 RGB -> the same with the heatmap of every class drawn over it."""
        size = (image_rgb.shape[1], image_rgb.shape[0])
        augmentation, resolution = Augmentation.identity(size), self.settings(size).resolution
        image = torch.from_numpy(augmentation.image(image_rgb, resolution)).permute(2, 0, 1)[None]
        to_channels_last(self.model, self.device)
        heatmap = self.model.eval()(image.to(self.device))["heatmap"][0].sigmoid().cpu().numpy()
        map_to_img = cells_to_image(augmentation.to_input(resolution))
        return draw_heatmap(image_rgb, heatmap, self.config.dataset.class_names, map_to_img)

    def frame(self, frame_id: str, image_size: tuple[int, int], calibration: Calibration) -> FrameInfo:
        """The frame of an image of ``image_size`` (width, height), with the ``depth_scale`` that its camera needs."""
        ratio = self.focal_ratio(image_size, calibration)
        same = not self.correct_depth or abs(ratio - 1) <= SAME_FOCAL
        return FrameInfo(frame_id, image_size, calibration, 1.0 if same else ratio)

    def focal_ratio(self, image_size: tuple[int, int], calibration: Calibration) -> float:
        """A camera's focal length divided by that of the training images, both at network resolution."""
        width = self.settings(image_size).resolution[0]
        return focal_net(calibration, image_size[0], width) / self.focal_net

    def settings(self, image_size: tuple[int, int]) -> DecodeSettings:
        """Network resolution and decoder settings for images of this size (width, height).

        Raises ValueError where the network input would be too large.
        """
        configured = decode_settings(self.config)
        resolution = self.resolution or resolution_for(image_size, configured.resolution)
        if resolution[0] * resolution[1] > _MAX_INPUT_PIXELS:
            raise ValueError(
                f"an image of {image_size[0]} x {image_size[1]} would need a network input of "
                f"{resolution[0]} x {resolution[1]}; give a smaller one (--resolution)"
            )
        map_to_image = "exact" if configured.map_to_image == "exact" else "auto"  # the input may have another shape
        return replace(configured, resolution=resolution, threshold=self.threshold, map_to_image=map_to_image)

    def stream(
        self, frames: Iterable[FrameInfo], read: Callable[[FrameInfo], np.ndarray | None], threads: int = 1
    ) -> Generator[Detection, None, None]:
        """Detections of many images, in order, while the next images are read; only a few are in memory at a time.

        Neighbours with the same network resolution form a batch. ``read`` returns a frame's image (H, W, 3) uint8, RGB,
        or None at the end; it is called in ``threads``.
        """

        def load(frame: FrameInfo) -> _Loaded | None:
            original = read(frame)
            if original is None:
                return None
            resolution = self.settings(frame.image_size).resolution
            image = Augmentation.identity(frame.image_size).image(original, resolution)
            return frame, original, torch.from_numpy(image)

        limit = self.max_batch or self.config.dataset.batch_size
        with contextlib.closing(map_ahead(load, frames, threads, ahead=max(threads, min(limit, 16)))) as loaded:
            for batch, detections in detect(self.model, self._batches(loaded), self.config.tester.topk, self.device):
                yield from map(Detection, batch.frames, batch.originals, detections)

    def _batches(self, loaded: Iterable[_Loaded | None]) -> Iterator[InferenceBatch]:
        items: list[_Loaded] = []
        for item in itertools.chain(loaded, [None]):
            if items and (item is None or not self._fits(items, item[0].image_size)):
                frames, originals, images = zip(*items, strict=True)
                stacked = torch.stack(images).permute(0, 3, 1, 2)  # channels last in memory
                yield InferenceBatch(stacked, frames, self.settings(frames[0].image_size), originals)
                items = []
            if item is None:
                return
            items.append(item)

    def _fits(self, items: Sequence[_Loaded], image_size: tuple[int, int]) -> bool:
        """Whether an image of this size may join a batch.

        Batches are as large as in training where the input is no larger, so that results equal those of an evaluation.
        """
        limit, (width, height) = self.max_batch or self.config.dataset.batch_size, self.config.dataset.resolution
        own_width, own_height = resolution = self.settings(image_size).resolution
        fitting = limit * width * height // (own_width * own_height)
        most = min(limit, fitting, _MAX_IMAGE_BYTES // (3 * image_size[0] * image_size[1]))
        return len(items) < most and resolution == self.settings(items[0][0].image_size).resolution


_Loaded = tuple[FrameInfo, np.ndarray, Tensor]  # frame, its image, and that at network resolution (H, W, 3) uint8


def load_detector(
    checkpoint: str | Path,
    config: str | Path | Config | None = None,
    device: torch.device | str | None = None,
    overrides: Sequence[str] = (),
) -> Detector:
    """A detector from a checkpoint, ready for inference: without the obj_depth head, BatchNorm folded.

    ``config``: for checkpoints without one, such as official ones; a YAML file or its content. ``device``: default: the
    first GPU, or the CPU where there is none. ``overrides``: 'section.key=value' of that configuration.

    Raises FileNotFoundError or ValueError naming the file and what is wrong.
    """
    path = Path(checkpoint)
    config, model, state = load_network(path, build_model, config, overrides)
    camera = state.get("camera")
    known = camera.get("focal_net") if isinstance(camera, dict) else None
    focal = known or KITTI_P2[0][0] * config.dataset.resolution[0] / KITTI_SIZE[0]
    device = choose_device((0,)) if device is None else torch.device(device)
    if device.type == "cpu":
        keep_freed_memory()
    return Detector(fold_batch_norm(model), config, device, focal, bool(known), config.tester.threshold)
