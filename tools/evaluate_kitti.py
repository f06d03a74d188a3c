"""Average precision of a folder of KITTI result files, by the protocol of KITTI's devkit, on the CPU.

    python tools/evaluate_kitti.py --labels data/KITTI/training/label_2 --results outputs/data \
        --ids data/KITTI/ImageSets/val.txt --json ap.json --curves ap.png --by-distance
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluation import CLASSES, DIFFICULTIES, DISTANCE_BANDS, KittiResult, evaluate_kitti
from lib.files import atomic_write
from lib.structures import read_split

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {"easy": "tab:green", "moderate": "tab:orange", "hard": "tab:red"}
_METRIC_TITLES = {"bbox": "2D box", "bev": "bird's eye view", "3d": "3D box"}
_PICTURES = (".png", ".pdf", ".svg")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, 2 for an error in what was given."""
    args = _parser().parse_args(argv)
    try:
        _check_outputs(args)
        ids = None if args.ids is None else read_split(args.ids)
        bands = DISTANCE_BANDS if args.by_distance else ()
        result = evaluate_kitti(args.labels, args.results, ids, args.classes, bands)
        if args.json is not None:
            with atomic_write(args.json) as file:
                file.write((json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n").encode())
        if args.curves is not None:
            with atomic_write(args.curves) as file:
                draw_curves(result, file, args.curves.suffix[1:].lower())
        print(result.table())
    except (OSError, ValueError) as error:
        print(f"evaluate_kitti: error: {error}", file=sys.stderr)
        return 2
    return 0


def draw_curves(result: KittiResult, file: IO[bytes], form: str) -> None:
    """Precision over recall as a picture (``form``: 'png', 'pdf' or 'svg'); loose overlaps are dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.6 * len(result.classes)), layout="constrained")
    axes = figure.subplots(len(result.classes), len(_METRIC_TITLES), squeeze=False, sharex=True, sharey=True)
    for row, cls in enumerate(result.classes):
        for column, (metric, title) in enumerate(_METRIC_TITLES.items()):
            ax = axes[row][column]
            ax.set(title=f"{cls}, {title}", xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
            ax.grid(alpha=0.3)
            _draw_metric(ax, result, cls, metric)
    FigureCanvasAgg(figure).print_figure(file, dpi=120, format=form)


def _draw_metric(ax: Axes, result: KittiResult, cls: str, metric: str) -> None:
    for overlap, style in (("official", "-"), ("loose", "--")):
        for difficulty in DIFFICULTIES:
            curve = result.curves.get((overlap, cls, metric, difficulty))
            if curve is None or (overlap == "loose" and metric == "bbox"):  # 2D overlaps are the same in both
                continue
            precision = curve.precision[: len(curve.thresholds)]
            label = f"{difficulty}, {overlap}: {result.ap(cls, metric, difficulty, overlap):.2f}"
            ax.plot(np.arange(len(precision)) / 40, precision, style, label=label, color=_COLOURS[difficulty])
    if ax.lines:
        ax.legend(fontsize="x-small", loc="best", title="AP40", title_fontsize="x-small")
    else:
        ax.text(0.5, 0.5, "no valid detection", ha="center", va="center", transform=ax.transAxes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="evaluate_kitti", description="Average precision of a folder of KITTI result files, on the CPU."
    )
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="folder of label files (label_2)")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="folder of result files (data)")
    parser.add_argument(
        "--ids",
        type=Path,
        metavar="FILE",
        help="frames to evaluate, one id a line; each needs a result file. Default: all that have a result file",
    )
    parser.add_argument("--classes", nargs="+", default=list(CLASSES), metavar="NAME", help=f"{', '.join(CLASSES)}")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures and counts")
    parser.add_argument("--curves", type=Path, metavar="OUT.png", help="draw precision over recall (png, pdf or svg)")
    parser.add_argument("--by-distance", action="store_true", help="also AP at depths of 0-30, 30-50 and 50-70 m")
    return parser


def _check_outputs(args: argparse.Namespace) -> None:
    """Fail before the work, not after it."""
    for path in (args.json, args.curves):
        if path is not None and path.is_dir():
            raise ValueError(f"{path}: is a folder; give the name of a file")
    if args.curves is not None and args.curves.suffix.lower() not in _PICTURES:
        raise ValueError(f"--curves must end in {', '.join(_PICTURES)}, got {args.curves.name!r}")


if __name__ == "__main__":
    sys.exit(main())
