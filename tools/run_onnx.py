#!/usr/bin/env python3
"""Images -> KITTI result files, with an exported detector (tools/export_onnx.py).

    python tools/run_onnx.py --model x.onnx --input image_2 --calib calib --out results
    python tools/run_onnx.py --model x.onnx --input a.png --p2 720 0 610 45 0 720 173 0.2 0 0 1 0.003 --out results

This file needs numpy, opencv-python (5 or later) and onnxruntime, and nothing else of its project: copy it.
"""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIXEL_LIMIT = "OPENCV_IO_MAX_IMAGE_PIXELS"
os.environ.setdefault(PIXEL_LIMIT, str(1 << 26))  # before OpenCV is loaded: a small file may state a huge size

import cv2  # noqa: E402
import numpy as np  # noqa: E402

PROVIDERS = ["CPUExecutionProvider"]  # with onnxruntime-gpu, put "CUDAExecutionProvider" first
FORMAT = "ddml-monodle detector, 1"
SUFFIXES = (".png", ".jpg", ".jpeg")
LARGEST_RATIO_DIFFERENCE = 0.03  # of width / height between image and input, with ``map_to_image: official``
MATRIX_KEYS = ("P2", "P_rect_02", "P_rect_00", "K")
"""KITTI's object files; calib_cam_to_cam.txt of raw drives; KITTI-360's perspective.txt; a 3x3 matrix"""
MAX_SHIFT = 2.0  # [m] a camera's largest distance from the origin of its frame
NEGATIVE_NUMBER = re.compile(r"^-(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")  # older argparse: -3.4e-01 is an option


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser._negative_number_matcher = NEGATIVE_NUMBER
    parser.add_argument("--model", required=True, type=Path, metavar="M.onnx")
    parser.add_argument("--input", required=True, type=Path, metavar="PATH", help="an image, or a folder of them")
    camera = parser.add_mutually_exclusive_group(required=True)
    camera.add_argument("--calib", type=Path, metavar="PATH", help="a KITTI calibration, or a folder of <image>.txt")
    camera.add_argument("--p2", nargs=12, type=float, metavar="N", help="projection matrix of all images, row by row")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for <image>.txt")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="default: 1")
    parser.add_argument("--threshold", type=float, metavar="T", help="lowest heatmap value; default: in the model")
    parser.add_argument("--overwrite", action="store_true", help="replace result files that exist")
    args = parser.parse_args(argv)
    try:
        return run(args)
    except (ValueError, OSError, MemoryError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130


def run(args: argparse.Namespace) -> int:
    """Check all inputs, detect, then write all files. Raises FileNotFoundError or ValueError for bad input."""
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be >= 1, got {args.batch_size}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold must be in [0, 1], got {args.threshold:g}")
    model = load_model(args.model)
    images = find_images(args.input)
    cameras = [check_p2(args.p2, "--p2") if args.p2 else read_p2(find_calibration(args.calib, p)) for p in images]
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out} must be a folder")
    targets = [args.out / f"{path.stem}.txt" for path in images]
    present = [path for path in targets if path.exists()]
    if present and not args.overwrite:
        raise ValueError(f"{present[0]} exists already; --overwrite replaces it")
    threshold = model.threshold if args.threshold is None else args.threshold
    print(f"images: {len(images)}, {model.resolution[0]} x {model.resolution[1]}, threshold {threshold:g}")
    started = last_message = time.perf_counter()
    texts: list[str] = []
    for k in range(0, len(images), args.batch_size):
        texts += detect(model, images[k : k + args.batch_size], cameras[k : k + args.batch_size], threshold)
        if time.perf_counter() - last_message > 10:
            last_message = time.perf_counter()
            print(f"{len(texts)} of {len(images)} images", flush=True)
    seconds = time.perf_counter() - started
    args.out.mkdir(parents=True, exist_ok=True)
    for path, text in zip(targets, texts, strict=True):
        write(path, text)
    objects = sum(text.count("\n") for text in texts)
    print(f"{objects} object{'s'[: objects != 1]}, {1000 * seconds / len(images):.0f} ms/image: {args.out}")
    return 0


@dataclass(frozen=True)
class Model:
    """An exported detector, with the metadata of its file."""

    session: Any
    class_names: list[str]
    resolution: tuple[int, int]  # network input (width, height) [px]
    threshold: float
    official_vertical: bool  # rows by the ratio of the heights, right only for images of the input's shape

    def warn_of_shape(self, path: Path, image: np.ndarray) -> None:
        """Print a warning where rows of an image are cut off, or its boxes will be at wrong rows."""
        height, width = image.shape[:2]
        ratio = (width / height) / (self.resolution[0] / self.resolution[1])
        if 1 - ratio > LARGEST_RATIO_DIFFERENCE:
            print(
                f"warning: {path}: {100 * (1 - ratio):.0f} % of its rows lie outside the network input; "
                "tools/predict.py fits the network input to the image"
            )
        if self.official_vertical and abs(ratio - 1) > LARGEST_RATIO_DIFFERENCE:
            print(
                f"warning: {path}: {width} x {height} has another shape than the model's {self.resolution[0]} x "
                f"{self.resolution[1]}, so boxes will be too high or too low; export with --set "
                "tester.map_to_image=exact, or use tools/predict.py, which fits the network input to the image"
            )


def load_model(path: Path) -> Model:
    """Raises FileNotFoundError, or ValueError for a file that tools/export_onnx.py did not write."""
    try:
        import onnxruntime
    except ImportError:
        raise ValueError("onnxruntime is missing: pip install onnxruntime") from None
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such model")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=PROVIDERS)
    except Exception as error:  # its exceptions have no base class of their own
        raise ValueError(f"{path}: not an ONNX file that onnxruntime can run: {str(error)[:200]}") from None
    metadata = session.get_modelmeta().custom_metadata_map
    try:
        values = {name: json.loads(text) for name, text in metadata.items()}
        if values["format"] != FORMAT:
            raise ValueError
        (width, height), official = values["resolution"], values["map_to_image"] == "official"
        return Model(session, values["class_names"], (width, height), values["threshold"], official)
    except (KeyError, ValueError):
        raise ValueError(f"{path}: not written by tools/export_onnx.py: its metadata lack {FORMAT!r}") from None


def find_images(path: Path) -> list[Path]:
    """A file, or the PNGs and JPEGs of a folder, sorted by name."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such image or folder")
    found = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file() and p.name[0] != ".")
    if not found:
        raise FileNotFoundError(f"{path}: no images ({', '.join(SUFFIXES)}) in this folder")
    by_stem: dict[str, Path] = {}
    for image in found:
        if image.stem in by_stem:
            raise ValueError(f"{by_stem[image.stem]} and {image.name} would share one result file")
        by_stem[image.stem] = image
    return found


def find_calibration(path: Path, image: Path) -> Path:
    """The calibration file of an image."""
    found = path / f"{image.stem}.txt" if path.is_dir() else path
    if not found.is_file():
        raise FileNotFoundError(f"{found}: no such calibration file, for {image.name}")
    return found


def read_p2(path: Path) -> np.ndarray:
    """The matrix of a calibration file, (3, 4): of the first of MATRIX_KEYS that it has, by the rules of check_p2."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError(f"{path}: this is UTF-16 text, as PowerShell writes it; save it as UTF-8")
    entries: dict[str, list[tuple[int, list[bytes]]]] = {}
    current: list[bytes] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        key, colon, values = line.partition(b":")
        if colon:
            current = values.split()
            entries.setdefault(key.strip().decode(errors="replace"), []).append((number, current))
        elif len(current) < 12 and all(map(is_number, line.split())):  # the numbers go on
            current += line.split()
        else:
            current = []
    name = next((name for name in MATRIX_KEYS if name in entries), None)
    if name is None:
        raise ValueError(f"{path}: no line 'P2: ...' (12 numbers), nor {', '.join(MATRIX_KEYS[1:])}")
    (number, words), *repeated = entries[name]
    if len(words) not in (9, 12) or not all(map(is_number, words)):
        text = b" ".join(words)[:120].decode(errors="backslashreplace")
        raise ValueError(f"{path}, line {number}: {name} must have 12 numbers (9 without translation), got {text!r}")
    matrix = [float(word) for word in words]
    if any(not all(map(is_number, other)) or list(map(float, other)) != matrix for _, other in repeated):
        raise ValueError(f"{path}, line {repeated[0][0]}: {name} differs from that on line {number}")
    return check_p2(matrix, f"{path}, line {number}")


def is_number(word: bytes) -> bool:
    """Whether ``float`` reads it; '1_000' is a number in Python only."""
    try:
        float(word)
    except ValueError:
        return False
    return b"_" not in word


def check_p2(values: Sequence[float], where: str) -> np.ndarray:
    """12 numbers, or 9 without translation -> (3, 4) float32, scaled so that the entry [2, 2] is 1.

    Raises ValueError for what is not the matrix of a rectified camera, (fu 0 cu t1; 0 fv cv t2; 0 0 1 t3).
    """
    matrix = np.array(values, dtype=np.float64).reshape(3, -1)
    matrix = np.column_stack([matrix, np.zeros(3)]) if matrix.shape == (3, 3) else matrix
    scale = matrix.diagonal()[:, None]
    if not np.isfinite(matrix).all() or scale.min() <= 0:
        raise ValueError(f"{where}: P2 must be finite with positive focal lengths and P2[2, 2] > 0, got {values}")
    pixels = abs(matrix[[0, 1, 0, 1], [0, 1, 2, 2]]) / matrix[2, 2]
    if not (pixels[:2].min() >= 1 and pixels.max() <= 1e6):
        raise ValueError(f"{where}: P2 must be in pixels, with focal lengths in 1 .. 1e6, got {values}")
    if (abs(matrix[[0, 1, 2, 2], [1, 0, 0, 1]]) > np.array([0.1, 0.1, 1e-4, 1e-4]) * matrix[2, 2]).any():
        raise ValueError(f"{where}: P2 must be that of a rectified camera without skew, got {values}")
    shift = abs(matrix / scale)[:, 3].max()
    if shift > MAX_SHIFT:
        reason = "is it in millimetres, or the pose of the camera?"
        raise ValueError(f"{where}: P2 shifts the camera by {shift:.3g} m, more than {MAX_SHIFT:g} m: {reason}")
    return (matrix / matrix[2, 2]).astype(np.float32)


def detect(model: Model, paths: Sequence[Path], cameras: Sequence[np.ndarray], threshold: float) -> list[str]:
    """The content of each image's result file."""
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        model.warn_of_shape(path, image)
    inputs = {
        "images": np.stack([to_network_input(image, model.resolution) for image in images]),
        "P2": np.stack(cameras),
        "image_size": np.array([image.shape[1::-1] for image in images], np.float32),
    }
    names = [output.name for output in model.session.get_outputs()]
    values = dict(zip(names, model.session.run(names, inputs), strict=True))
    # detections with a negative size are left out, as in the published decoder
    kept = (values["heatmap"] >= np.float64(threshold)) & (values["dimensions"] >= 0).all(axis=2)
    return [
        "".join(
            result_line(model.class_names, {name: value[b, k] for name, value in values.items()})
            for k in np.flatnonzero(kept[b])
        )
        for b in range(len(paths))
    ]


def read_image(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, BGR, turned upright by its EXIF orientation, as tools/predict.py does."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    except cv2.error:  # an empty file, or too many pixels
        image = None
    if image is None:
        limit = f"at most {os.environ[PIXEL_LIMIT]} pixels (set {PIXEL_LIMIT} for more)"
        raise ValueError(f"{path}: this image cannot be decoded; expected a PNG or JPEG with {limit}")
    return image


def to_network_input(image: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) BGR -> (h, w, 3) RGB: scaled by the ratio of the widths, centre to centre, black outside."""
    height, width = image.shape[:2]
    scale = resolution[0] / width
    shift_y = resolution[1] / 2 - scale * height / 2
    # OpenCV's coordinates are 0 at the centre of the first pixel
    inverse = np.array([[1 / scale, 0, 0.5 / scale - 0.5], [0, 1 / scale, (0.5 - shift_y) / scale - 0.5]])
    # as in training: values are truncated, not rounded, and no black is mixed in at the border of the image
    flags, pixels = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, image.astype(np.float32)
    warped = cv2.warpAffine(pixels, inverse, resolution, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    rows = np.floor((np.arange(resolution[1]) + 0.5 - shift_y) / scale)
    warped[(rows < 0) | (rows >= height)] = 0
    return cv2.cvtColor(warped.astype(np.uint8), cv2.COLOR_BGR2RGB)


def result_line(class_names: Sequence[str], values: dict[str, Any]) -> str:
    """KITTI's columns with two decimals: alpha, 2D box, (h, w, l), location, rotation_y, score after the constants."""
    columns = [values[name] for name in ("alpha", "bbox", "dimensions", "location", "rotation_y", "score")]
    numbers = np.concatenate([np.atleast_1d(column) for column in columns])
    return f"{class_names[values['class_index']]} 0.0 0 " + " ".join(f"{v:.2f}" for v in numbers.tolist()) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="ascii")
        temporary.replace(path)
    except OSError as error:  # that of a full disk names no file
        raise OSError(f"{path}: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
