"""Images -> detections -> KITTI result files."""

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

from ..config import Config
from ..postprocess import DECODER_INPUTS, DecodeSettings, decode_detections
from ..structures import FrameInfo, Object3d
from ..system.commands import show_progress
from ..system.files import named_errors
from ..system.threads import map_ahead
from .step import to_channels_last

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class InferenceBatch:
    """Images at network resolution, and what decoding their detections needs."""

    images: Tensor
    """(B, 3, H, W) uint8, RGB"""
    frames: Sequence[FrameInfo]
    settings: DecodeSettings
    """its resolution is that of the images"""
    originals: Sequence[np.ndarray] = ()
    """the original images (h, w, 3) uint8, RGB, for drawing; empty where they are not needed"""


def detect(
    model: nn.Module, batches: Iterable[InferenceBatch], topk: int, device: torch.device
) -> Iterator[tuple[InferenceBatch, list[list[Object3d]]]]:
    """Each batch with the detections of its frames, at most ``topk`` per frame; two batches are in memory at a time.

    Always in float32: bfloat16 has 8 significant bits, too few to separate neighbouring peaks or to encode a depth of
    40 m with an error below 0.3 m. Leaves the model in evaluation mode.
    """
    to_channels_last(model, device)
    model.eval()

    def outputs() -> Iterator[tuple[InferenceBatch, dict[str, Tensor]]]:
        for batch in batches:
            with torch.no_grad():
                found = model(batch.images.to(device, non_blocking=True), topk=topk)
            yield batch, {name: found[name] for name in DECODER_INPUTS}

    def decode(item: tuple[InferenceBatch, dict[str, Tensor]]) -> tuple[InferenceBatch, list[list[Object3d]]]:
        batch, found = item[0], {name: values.cpu() for name, values in item[1].items()}
        broken = [name for name, values in found.items() if not bool(torch.isfinite(values).all())]
        if broken:
            frames = ", ".join(frame.frame_id for frame in batch.frames)
            raise FloatingPointError(
                f"the network's output {broken[0]} is not finite: frames {frames}; use an earlier checkpoint"
            )
        return batch, decode_detections(found, batch.frames, batch.settings)

    # a thread decodes a batch while the network computes the next one
    return map_ahead(decode, outputs())


def decode_settings(config: Config) -> DecodeSettings:
    """The part of the configuration that decoding needs."""
    return DecodeSettings(
        config.dataset.class_names,
        config.dataset.resolution,
        config.tester.threshold,
        config.dataset.known_sizes if config.dataset.meanshape else None,
        config.tester.map_to_image,
    )


def predict(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: DecodeSettings,
    topk: int,
    device: torch.device,
    visible: bool = True,
) -> list[tuple[str, list[Object3d]]]:
    """Detections of every frame of the loader, as (frame id, objects) in its order; see :func:`detect`.

    ``visible``: show a progress bar.
    """
    results: list[tuple[str, list[Object3d]]] = []
    with show_progress(loader, "inference", unit="batch", leave=False, disable=not visible) as bar:
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

    A temporary folder is written and then renamed, so results never mix with older ones or with another process's.
    Raises OSError where it cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(".tmp", f".{folder.name}.", folder.parent))
    try:
        fresh.chmod(folder.parent.stat().st_mode)  # mkdtemp gives no rights to other users
        for frame_id, objects in results:
            with named_errors(folder / f"{frame_id}.txt"):
                (fresh / f"{frame_id}.txt").write_text(result_text(objects), encoding="ascii")
        _replace(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _replace(fresh: Path, folder: Path) -> None:
    for last_try in (False, False, True):  # another process may create the folder between the two steps
        shutil.rmtree(folder, ignore_errors=True)
        try:
            fresh.rename(folder)
            return
        except OSError:
            if last_try:
                raise
