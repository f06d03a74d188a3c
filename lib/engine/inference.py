"""Pictures -> detections -> KITTI result files."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from lib.config import Config
from lib.engine.runtime import progress_interval
from lib.engine.step import prepare
from lib.postprocess import DECODED, DecodeSettings, decode_detections
from lib.structures import FrameInfo, Object3d

logger = logging.getLogger(__name__)


def decode_settings(config: Config) -> DecodeSettings:
    """What the configuration says about decoding."""
    return DecodeSettings(
        config.dataset.class_names,
        config.dataset.resolution,
        config.tester.threshold,
        config.dataset.known_sizes if config.dataset.meanshape else None,
        config.tester.map_to_image == "official",
    )


@torch.no_grad()
def predict(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: DecodeSettings,
    topk: int,
    device: torch.device,
    show_progress: bool = True,
) -> list[tuple[str, list[Object3d]]]:
    """Detections of every frame of the loader, as (frame id, objects), in its order; at most ``topk`` a frame.

    Always in float32: bfloat16 has 8 bits, too few to tell neighbouring peaks apart or to code a depth of 40 m to
    better than 0.3 m. Leaves the model in eval mode.
    """
    prepare(model, device)
    model.eval()
    results: list[tuple[str, list[Object3d]]] = []
    pending: deque[Future[list[tuple[str, list[Object3d]]]]] = deque()

    def decode(outputs: dict[str, Tensor], frames: Sequence[FrameInfo]) -> list[tuple[str, list[Object3d]]]:
        detections = decode_detections(outputs, frames, settings)
        return [(frame.frame_id, objects) for frame, objects in zip(frames, detections, strict=True)]

    interval = progress_interval()
    bar = tqdm(loader, "inference", leave=False, unit="batch", mininterval=interval, disable=not show_progress)
    # a batch is decoded while the network is at the next one and the loader's workers are at those after it
    with ThreadPoolExecutor(1) as decoder, bar:
        for images, _, frames, _ in bar:
            outputs = model(images.to(device, non_blocking=True), topk=topk)
            pending.append(decoder.submit(decode, {name: outputs[name] for name in DECODED}, frames))
            if len(pending) > 1:
                results += pending.popleft().result()
        for rest in pending:
            results += rest.result()
    return results


def write_results(folder: Path, results: Iterable[tuple[str, Sequence[Object3d]]]) -> None:
    """Write ``folder/<frame id>.txt`` for every frame, an empty file for one without detections.

    The folder is made beside its place and then put there, so it never holds a mixture with older results.
    """
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for frame_id, objects in results:
        text = "".join(obj.to_result_line() + "\n" for obj in objects)
        (fresh / f"{frame_id}.txt").write_text(text, encoding="ascii")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
