"""Images -> detections -> KITTI result files."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..config import Config
from ..postprocess import DECODED, DecodeSettings, decode_detections
from ..structures import FrameInfo, Object3d
from ..system.commands import progress_interval
from ..system.threads import map_ahead
from .step import to_channels_last

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceBatch:
    """Images at network resolution and what it takes to decode their detections."""

    images: Tensor
    """(B, 3, H, W) uint8, RGB"""
    frames: Sequence[FrameInfo]
    settings: DecodeSettings
    """its resolution is that of the images"""
    originals: Sequence[np.ndarray] = ()
    """the originals (h, w, 3) uint8, RGB, where somebody wants to draw on them"""


def detect(
    model: nn.Module, batches: Iterable[InferenceBatch], topk: int, device: torch.device
) -> Iterator[tuple[InferenceBatch, list[list[Object3d]]]]:
    """Each batch with the detections of its frames, at most ``topk`` a frame; holds two batches at a time.

    Always in float32: bfloat16 has 8 bits, too few to tell neighbouring peaks apart or to code a depth of 40 m to
    better than 0.3 m. Leaves the model in eval mode.
    """
    to_channels_last(model, device)
    model.eval()

    def outputs() -> Iterator[tuple[InferenceBatch, dict[str, Tensor]]]:
        for batch in batches:
            with torch.no_grad():
                found = model(batch.images.to(device, non_blocking=True), topk=topk)
            yield batch, {name: found[name] for name in DECODED}

    def decode(item: tuple[InferenceBatch, dict[str, Tensor]]) -> tuple[InferenceBatch, list[list[Object3d]]]:
        batch, found = item
        return batch, decode_detections(found, batch.frames, batch.settings)

    # a batch is decoded while the network is at the next one and the loaders are at those after it
    return map_ahead(decode, outputs())


def decode_settings(config: Config) -> DecodeSettings:
    """What the configuration says about decoding."""
    return DecodeSettings(
        config.dataset.class_names,
        config.dataset.resolution,
        config.tester.threshold,
        config.dataset.known_sizes if config.dataset.meanshape else None,
        config.tester.map_to_image == "official",
    )


def predict(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: DecodeSettings,
    topk: int,
    device: torch.device,
    show_progress: bool = True,
) -> list[tuple[str, list[Object3d]]]:
    """Detections of every frame of the loader, as (frame id, objects), in its order; see :func:`detect`."""
    interval = progress_interval()
    results: list[tuple[str, list[Object3d]]] = []
    with tqdm(loader, "inference", leave=False, unit="batch", mininterval=interval, disable=not show_progress) as bar:
        batches = (InferenceBatch(images, frames, settings) for images, _, frames, _ in bar)
        for batch, detections in detect(model, batches, topk, device):
            frames = [frame.frame_id for frame in batch.frames]
            results += zip(frames, detections, strict=True)
    return results


def result_text(objects: Iterable[Object3d]) -> str:
    """The content of a KITTI result file."""
    return "".join(obj.to_result_line() + "\n" for obj in objects)


def write_results(folder: Path, results: Iterable[tuple[str, Sequence[Object3d]]]) -> None:
    """Write ``folder/<frame id>.txt`` for every frame, an empty file for one without detections.

    The folder is made beside its place and then put there, so it never holds a mixture with older results, nor with
    those of another process. Raises OSError where it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(".tmp", f".{folder.name}.", folder.parent))
    try:
        fresh.chmod(folder.parent.stat().st_mode)  # mkdtemp's are for nobody else
        for frame_id, objects in results:
            (fresh / f"{frame_id}.txt").write_text(result_text(objects), encoding="ascii")
        _put_in_place(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _put_in_place(fresh: Path, folder: Path) -> None:
    for last_try in (False, False, True):  # another process may put its own there between the two steps
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
            return
        except OSError:
            if last_try:
                raise
