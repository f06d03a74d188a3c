#!/usr/bin/env python3
"""Write a checkpoint as one ONNX file that goes from images to 3D boxes, and check it against PyTorch.

    python tools/export_onnx.py --checkpoint outputs/x/checkpoints/checkpoint_last.pth --out x.onnx
    python tools/run_onnx.py --model x.onnx --input image_2 --calib calib --out results

Needs the packages onnx, onnxscript and onnxruntime. What the file takes and gives: docs/export.md.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.datasets.augmentation import Augmentation
from lib.datasets.images import read_image
from lib.engine.network import load_network
from lib.engine.step import to_channels_last
from lib.export.check import Comparison
from lib.export.onnx_graph import INPUTS, OLDEST_OPSET, OUTPUTS, ExportableDetector, describe, to_onnx
from lib.models import build_model
from lib.system.commands import progress_interval, run_command, setup_logging
from lib.system.files import atomic_write

logger = logging.getLogger("lib.tools.export_onnx")

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
BATCH_SIZES = (1, 3, 1, 3)
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]
"""images, P2 and sizes, as the exported graph takes them"""
Seconds = dict[str, list[float]]
"""by runtime, of each batch, an image"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a file that does not compute what PyTorch does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, type=Path, metavar="X.pth")
    parser.add_argument("--out", required=True, type=Path, metavar="M.onnx")
    parser.add_argument("--config", metavar="X.yaml", help="needed where the checkpoint holds none (official ones)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of it"
    )
    parser.add_argument(
        "--opset", type=int, default=OLDEST_OPSET, metavar="N", help=f"ONNX operator set; default: {OLDEST_OPSET}"
    )
    parser.add_argument(
        *("--images", "--pictures"), nargs="+", type=Path, default=[], metavar="FILE", help="to check with, too"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier M.onnx")
    args = parser.parse_args(argv)
    return run_command(lambda: export(args))


def export(args: argparse.Namespace) -> int:
    """Raises what ``run_command`` turns into one line; the file is only written when it has passed the check."""
    setup_logging()
    for name in ("onnxscript", "onnx_ir"):  # they tell of every node
        logging.getLogger(name).setLevel(logging.WARNING)
    if args.out.suffix.lower() != ".onnx":
        raise ValueError(f"--out must end in .onnx, got {args.out.name!r}")
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} exists already; --overwrite replaces it")
    newest = require_packages().defs.onnx_opset_version()
    if not OLDEST_OPSET <= args.opset <= newest:
        raise ValueError(f"--opset must be in {OLDEST_OPSET} .. {newest} (this onnx's newest), got {args.opset}")
    config, model = load_network(args.checkpoint, build_model, args.config, args.set)[:2]
    detector = ExportableDetector(model, config).eval()
    resolution = config.dataset.resolution
    batches = [*random_batches(resolution), *image_batches(args.images, resolution)]
    logger.info("exporting %s, %s, %d x %d", args.checkpoint, config.model.backbone, *resolution)
    content = to_onnx(detector, args.opset, describe(config))
    logger.info("comparing with PyTorch: %d images in batches of 1 to 3", sum(len(b[0]) for b in batches))
    session = open_session(content)
    comparison, seconds = compare(session, detector, batches)
    _report(session, comparison, seconds)
    comparison.require_equality(f"{args.out} is not written")
    with atomic_write(args.out) as file:
        file.write(content)
    logger.info("%.1f MB, opset %d: %s", len(content) / 1e6, args.opset, args.out)
    return 0


def require_packages() -> Any:
    """The module onnx. Raises ValueError, saying what to install, where an optional package is missing."""
    missing = []
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise ValueError(f"exporting needs {', '.join(missing)}: pip install {' '.join(missing)}")
    return importlib.import_module("onnx")


def open_session(content: bytes) -> Any:
    """An onnxruntime session on the CPU. Raises ValueError where the file's operator set is too new for it."""
    onnxruntime = importlib.import_module("onnxruntime")
    try:
        return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base of their own
        raise ValueError(f"onnxruntime {onnxruntime.__version__} does not take the exported file: {error}") from error


def random_batches(resolution: tuple[int, int]) -> Iterator[Batch]:
    """Patches of random colours under noise, with cameras and image sizes like KITTI's."""
    rng = np.random.default_rng(0)
    for size in BATCH_SIZES:
        patches = rng.integers(0, 256, (size, 6, 20, 3), dtype=np.uint8)
        images = np.stack([cv2.resize(p, resolution, interpolation=cv2.INTER_CUBIC) for p in patches])
        noise = rng.integers(-40, 41, images.shape)
        yield (np.clip(images + noise, 0, 255).astype(np.uint8), *_cameras(rng, size))


def image_batches(paths: Sequence[Path], resolution: tuple[int, int]) -> Iterator[Batch]:
    """Image files one by one, as the network gets them. Raises FileNotFoundError or ValueError."""
    rng = np.random.default_rng(1)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such image")
        image = read_image(path)
        size = (image.shape[1], image.shape[0])
        P2, _ = _cameras(rng, 1)
        yield Augmentation.identity(size).image(image, resolution)[None], P2, np.array([size], np.float32)


def _cameras(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    image_size = rng.integers((1200, 360), (1260, 380), (size, 2)).astype(np.float32)
    P2 = np.zeros((size, 3, 4), np.float32)
    P2[:, 0, 0] = P2[:, 1, 1] = rng.uniform(600, 800, size)
    P2[:, :2, 2] = image_size / 2 + rng.uniform(-20, 20, (size, 2))
    P2[:, :2, 3] = rng.uniform(-50, 50, (size, 2))
    P2[:, 2, 2] = 1
    return P2, image_size


@torch.no_grad()
def compare(session: Any, detector: ExportableDetector, batches: Sequence[Batch]) -> tuple[Comparison, Seconds]:
    """Both runtimes on all batches."""
    comparison = Comparison()
    seconds: Seconds = {"onnxruntime": [], "PyTorch": []}
    to_channels_last(detector, torch.device("cpu"))  # as the evaluation does
    for batch in tqdm(batches, "comparing", leave=False, unit="batch", mininterval=progress_interval()):
        started = time.perf_counter()
        exported = session.run(list(OUTPUTS), dict(zip(INPUTS, batch, strict=True)))
        between = time.perf_counter()
        images, P2, image_size = (torch.from_numpy(array) for array in batch)
        outputs = detector.model(images.permute(0, 3, 1, 2), topk=detector.topk)
        decoded = detector.decode(outputs, P2, image_size)
        ended = time.perf_counter()
        seconds["onnxruntime"].append((between - started) / len(images))
        seconds["PyTorch"].append((ended - between) / len(images))
        theirs = {name: value.numpy() for name, value in decoded.items()}
        comparison.add(dict(zip(OUTPUTS, exported, strict=True)), theirs, outputs)
    return comparison, seconds


def _report(session: Any, comparison: Comparison, seconds: Seconds) -> None:
    for kind, tensors in (("input", session.get_inputs()), ("output", session.get_outputs())):
        for tensor in tensors:
            difference = comparison.differences.get(tensor.name)
            said = "" if difference is None else f"largest relative difference {difference:.1e}"
            logger.info("  %-6s %-11s %-13s %-25s %s", kind, tensor.name, tensor.type, tensor.shape, said)
    logger.info("%d of %d objects compared", comparison.compared, comparison.objects)
    times = [f"{name} {1000 * statistics.median(s):.0f}" for name, s in seconds.items()]
    logger.info("rough time on this CPU, ms/image: %s", ", ".join(times))


if __name__ == "__main__":
    sys.exit(main())
