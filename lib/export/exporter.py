"""A checkpoint -> an ONNX file, written only after it has been compared with PyTorch."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from ..engine.network import load_network
from ..engine.step import to_channels_last
from ..models import build_model
from ..system.files import atomic_write
from .check import Batch, Comparison, image_batches, random_batches
from .onnx_graph import INPUTS, OLDEST_OPSET, OUTPUTS, ExportableDetector, describe_detector, to_onnx

logger = logging.getLogger(__name__)


def export_checkpoint(
    path: Path, out: Path, config: str | None, overrides: list[str], opset: int, images: list[Path], overwrite: bool
) -> None:
    """Write the detector of the checkpoint ``path`` as the ONNX file ``out``.

    ``config`` and ``overrides`` are those of ``load_network``; ``images`` are compared in addition to random ones.
    Raises FileNotFoundError or ValueError for bad input or a missing package, and FloatingPointError where the file
    does not compute what PyTorch computes.
    """
    if out.suffix.lower() != ".onnx":
        raise ValueError(f"--out must end in .onnx, got {out.name!r}")
    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists already; --overwrite replaces it")
    newest = newest_opset()
    if not OLDEST_OPSET <= opset <= newest:
        raise ValueError(f"--opset must be in {OLDEST_OPSET} .. {newest} (this onnx's newest), got {opset}")
    config_used, model, _ = load_network(path, build_model, config, overrides)
    resolution = config_used.dataset.resolution
    batches = [*random_batches(resolution), *image_batches(images, resolution)]
    logger.info("exporting %s, %s, %d x %d", path, config_used.model.backbone, *resolution)
    detector = ExportableDetector(model, config_used).eval()
    content = to_onnx(detector, opset, describe_detector(config_used))
    logger.info("comparing with PyTorch: %d images in batches of 1 to 3", sum(len(b[0]) for b in batches))
    comparison = compare_with_pytorch(content, detector, batches)
    comparison.require_agreement(f"{out} is not written")
    for name, value in comparison.largest.items():
        logger.info("  %-11s largest relative difference %.1e", name, value)
    logger.info("%d of %d objects agree", comparison.objects - comparison.differing, comparison.objects)
    with atomic_write(out) as file:
        file.write(content)
    logger.info("%.1f MB, opset %d: %s", len(content) / 1e6, opset, out)


def newest_opset() -> int:
    """The newest operator set that onnx has. Raises ValueError where an optional package is missing."""
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"exporting needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    for name in ("onnxscript", "onnx_ir"):  # they log every node
        logging.getLogger(name).setLevel(logging.WARNING)
    return int(onnx.defs.onnx_opset_version())


@torch.no_grad()
def compare_with_pytorch(content: bytes, detector: ExportableDetector, batches: Sequence[Batch]) -> Comparison:
    """Run an ONNX file and ``detector`` on the CPU. Raises ValueError for a file that onnxruntime cannot run."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no base class of their own
        raise ValueError(f"onnxruntime {onnxruntime.__version__} cannot run the exported file: {error}") from error
    to_channels_last(detector, torch.device("cpu"))  # as in the evaluation
    comparison = Comparison()
    for batch in batches:
        exported = session.run(list(OUTPUTS), dict(zip(INPUTS, batch, strict=True)))
        expected = [value.numpy() for value in detector(*map(torch.from_numpy, batch))]
        for k in range(len(batch[0])):
            a, b = (dict(zip(OUTPUTS, [v[k] for v in side], strict=True)) for side in (exported, expected))
            comparison.add(a, b)
    return comparison
