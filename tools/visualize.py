#!/usr/bin/env python3
"""Draw KITTI result files beside the labels: each frame as one image with 3D boxes and a bird's-eye view.

    python tools/visualize.py --dataroot D --results R --out O
    python tools/visualize.py --dataroot D --out O --maps --checkpoint x.pth

Without --results the labels alone are drawn. With --maps each frame's object-wise depth map goes to
<frame id>_depth.png, and with --checkpoint the network's heatmap to <frame id>_heatmap.png.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import paint_object_depth
from lib.structures import Object3d, read_objects
from lib.system.commands import progress_interval, run_command
from lib.system.files import write_file
from lib.visualization import draw_comparison, draw_heatmap, draw_object_depth

MIN_SCORE = 0.2
"""of detections in images that are drawn without being asked for"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--results", metavar="DIR", help="result files, <frame id>.txt; default: draw labels alone")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the images go, <frame id>.png")
    parser.add_argument("--split", default="val", choices=("train", "val", "trainval", "test"), help="default: val")
    parser.add_argument("--ids", nargs="+", metavar="ID", help="default: the first --count frames of the split")
    parser.add_argument("--count", type=int, default=8, metavar="N", help="default: 8")
    parser.add_argument("--min-score", type=float, default=0.0, metavar="S", help="least score to draw; default: 0")
    parser.add_argument("--maps", action="store_true", help="draw object-wise depth maps, from the labels, too")
    parser.add_argument("--checkpoint", type=Path, metavar="X.pth", help="draw this network's heatmaps, too")
    parser.add_argument("--config", type=Path, metavar="X.yaml", help="of a checkpoint without one (official ones)")
    args = parser.parse_args(argv)
    return run_command(lambda: visualize(args))


def visualize(args: argparse.Namespace) -> int:
    """Raises FileNotFoundError or ValueError for what is missing or broken."""
    dataset, out = KITTI(args.dataroot, args.split), Path(args.out)
    results = Path(args.results) if args.results else None
    if results is not None and not results.is_dir():
        raise FileNotFoundError(f"{results}: no such folder of result files")
    if args.maps and not dataset.has_labels:
        raise ValueError(f"--maps: split {args.split!r} has no labels to paint depth maps from")
    if args.count < 1:
        raise ValueError(f"--count must be >= 1, got {args.count}")
    ids = args.ids or dataset.frame_ids[: args.count]
    unknown = [i for i in ids if i not in dataset.frame_ids]
    if unknown:
        raise ValueError(f"--ids: {', '.join(unknown)} not in split {args.split!r} of {args.dataroot} (--split)")
    if results is None and not dataset.has_labels:
        raise ValueError(f"--results: needed, since split {args.split!r} has no labels to draw")
    detections = {
        i: None if results is None else confident(read_objects(results / f"{i}.txt"), args.min_score) for i in ids
    }
    draw_heatmaps = heatmap_drawer(args.checkpoint, args.config) if args.checkpoint else None
    for frame_id, panel in comparison_panels(dataset, detections):
        write_file(out / f"{frame_id}.png", encode(panel, ".png"))
        if args.maps or draw_heatmaps:
            frame = dataset.read(dataset.number[frame_id])
            image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
            if args.maps:
                depth_map = paint_object_depth(frame.objects, (image.shape[1], image.shape[0]))
                write_file(out / f"{frame_id}_depth.png", encode(draw_object_depth(image, depth_map), ".png"))
            if draw_heatmaps:
                write_file(out / f"{frame_id}_heatmap.png", encode(draw_heatmaps(frame.image), ".png"))
    print(f"{len(ids)} images, {'labels beside detections' if results else 'labels'}: {out}")
    return 0


def heatmap_drawer(checkpoint: Path, config: Path | None) -> Callable[[np.ndarray], np.ndarray]:
    """What draws a network's heatmap over an image (H, W, 3) uint8, RGB. Raises ValueError naming the checkpoint."""
    from lib.prediction import load_detector  # torch takes seconds to import, and images of results need none

    detector = load_detector(checkpoint, config)

    def draw(image_rgb: np.ndarray) -> np.ndarray:
        heatmap, to_image = detector.heatmap(image_rgb)
        names = detector.config.dataset.class_names
        return draw_heatmap(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR), heatmap, names, to_image)

    return draw


def comparison_panels(
    dataset: KITTI, detections: Mapping[str, Sequence[Object3d] | None]
) -> Iterator[tuple[str, np.ndarray]]:
    """Frame id and panel (H, W, 3) uint8 BGR of each frame in ``detections``: with its labels, where it has any.

    None instead of detections: labels alone.

    Raises ValueError or OSError, naming the file, for an image that cannot be read.
    """
    interval = progress_interval()
    for frame_id, found in tqdm(detections.items(), "drawing", unit="frame", mininterval=interval, delay=1):
        frame = dataset.read(dataset.number[frame_id])
        labels = frame.objects if dataset.has_labels else None
        yield frame_id, draw_comparison(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR), frame.calibration, labels, found)


def draw_some(dataset: KITTI, detections: Mapping[str, Sequence[Object3d]], count: int, folder: Path) -> None:
    """``folder/<frame id>.jpg`` of ``count`` frames of the split, with detections of ``MIN_SCORE`` or more.

    Older images there are deleted first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    chosen = evenly_spaced(dataset.frame_ids, count)
    shown = {frame_id: confident(detections[frame_id], MIN_SCORE) for frame_id in chosen}
    for frame_id, panel in comparison_panels(dataset, shown):
        write_file(folder / f"{frame_id}.jpg", encode(panel, ".jpg"))


def confident(objects: Sequence[Object3d], min_score: float) -> list[Object3d]:
    """Those with at least this score."""
    return [obj for obj in objects if (obj.score or 0.0) >= min_score]


def evenly_spaced(frame_ids: Sequence[str], count: int) -> list[str]:
    """``count`` of the frames, or all if there are fewer, from the first to the last."""
    places = np.linspace(0, len(frame_ids) - 1, min(count, len(frame_ids))).round().astype(int)
    return [frame_ids[place] for place in places]


def encode(panel: np.ndarray, suffix: str, largest_width: int | None = None) -> bytes:
    """An image file's content. ``suffix``: '.png' or '.jpg'; a wider panel is shrunk to ``largest_width`` [px]."""
    height, width = panel.shape[:2]
    if largest_width and width > largest_width:
        size = (largest_width, round(height * largest_width / width))
        panel = cv2.resize(panel, size, interpolation=cv2.INTER_AREA)
    options = [cv2.IMWRITE_JPEG_QUALITY, 85] if suffix == ".jpg" else []
    return cv2.imencode(suffix, panel, options)[1].tobytes()


if __name__ == "__main__":
    sys.exit(main())
