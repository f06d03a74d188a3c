"""Average precision of a folder of KITTI result files, by the protocol of KITTI's devkit, on the CPU.

    python tools/evaluate_kitti.py --labels data/KITTI/training/label_2 --results outputs/data \
        --ids data/KITTI/ImageSets/val.txt --json ap.json --curves ap.png --by-distance
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluation import CLASSES, DISTANCE_BANDS, KittiResult, evaluate_kitti
from lib.structures import read_split
from lib.system.commands import run_command
from lib.system.files import atomic_write

if TYPE_CHECKING:
    from lib.visualization.evaluation_panels import PrecisionCurve

_IMAGES = (".png", ".pdf", ".svg")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    args = _parser().parse_args(argv)
    return run_command(lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> int:
    """Raises what ``run_command`` turns into one line."""
    _check_outputs(args)
    overlaps = dict(read_overlaps(text, args.classes) for text in args.overlaps)
    ids = None if args.ids is None else read_split(args.ids)
    bands = DISTANCE_BANDS if args.by_distance else ()
    result = evaluate_kitti(args.labels, args.results, ids, args.classes, bands, overlaps)
    if args.json is not None:
        with atomic_write(args.json) as file:
            file.write((json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n").encode())
    if args.curves is not None:
        draw_curves(result, args.curves)
    print(result.table())
    return 0


def read_overlaps(text: str, classes: Sequence[str]) -> tuple[str, tuple[float, float]]:
    """'Pallet=0.7,0.5' -> ('Pallet', (0.7, 0.5)). Raises ValueError."""
    match = re.fullmatch(r"([^=]+)=(\d*\.?\d+),(\d*\.?\d+)", text, re.ASCII)
    if match is None:
        raise ValueError(f"--overlaps: expected NAME=OFFICIAL,LOOSE such as Pallet=0.7,0.5, got {text!r}")
    if match[1] in CLASSES or match[1] not in classes:
        raise ValueError(f"--overlaps: expected one of --classes that is not {', '.join(CLASSES)}, got {match[1]!r}")
    return match[1], (float(match[2]), float(match[3]))


def precision_curves(result: KittiResult) -> list[PrecisionCurve]:
    """What ``lib.visualization`` draws: of each curve the part that was reached."""
    from lib.visualization.evaluation_panels import PrecisionCurve

    return [
        PrecisionCurve(
            *(cls, metric, difficulty, overlap, curve.precision[: len(curve.thresholds)]),
            result.ap(cls, metric, difficulty, overlap),
        )
        for (overlap, cls, metric, difficulty), curve in result.curves.items()
    ]


def draw_curves(result: KittiResult, path: Path) -> None:
    """Precision over recall as a figure, its form by the path's suffix."""
    from lib.visualization.evaluation_panels import precision_panels
    from lib.visualization.panels import save_panels

    save_panels(precision_panels(result.classes, precision_curves(result)), path)


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
    parser.add_argument(
        "--overlaps",
        nargs="+",
        default=[],
        metavar="NAME=OFFICIAL,LOOSE",
        help="least overlaps of classes of your own, as tester.overlaps has them; default: 0.5,0.25",
    )
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures and counts")
    parser.add_argument("--curves", type=Path, metavar="OUT.png", help="draw precision over recall (png, pdf or svg)")
    parser.add_argument("--by-distance", action="store_true", help="also AP at depths of 0-30, 30-50 and 50-70 m")
    return parser


def _check_outputs(args: argparse.Namespace) -> None:
    """Fail before the work, not after it."""
    for path in (args.json, args.curves):
        if path is not None and path.is_dir():
            raise ValueError(f"{path}: is a folder; give the name of a file")
    if args.curves is not None and args.curves.suffix.lower() not in _IMAGES:
        raise ValueError(f"--curves must end in {', '.join(_IMAGES)}, got {args.curves.name!r}")


if __name__ == "__main__":
    sys.exit(main())
