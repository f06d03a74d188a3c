"""Average precision of a folder of KITTI result files, by the protocol of KITTI's devkit, on the CPU.

    python tools/evaluate_kitti.py --labels data/KITTI/training/label_2 --results outputs/data \
        --ids data/KITTI/ImageSets/val.txt --json ap.json --curves ap.png --by-distance
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluation import CLASSES, DISTANCE_BANDS, evaluate_kitti
from lib.evaluation.protocol import normalise_classes
from lib.structures import read_split
from lib.system.commands import run_command
from lib.system.files import write_file, write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="evaluate_kitti", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="folder of label files (label_2)")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="folder of result files (data)")
    ids = "frames to evaluate, one id a line; each needs a result file. Default: all that have a result file"
    parser.add_argument("--ids", type=Path, metavar="FILE", help=ids)
    parser.add_argument("--classes", nargs="+", default=list(CLASSES), metavar="NAME", help=f"{', '.join(CLASSES)}")
    overlaps = "minimum overlaps of your own classes, as in tester.overlaps; default: 0.5,0.25"
    parser.add_argument("--overlaps", nargs="+", default=[], metavar="NAME=OFFICIAL,LOOSE", help=overlaps)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all APs and counts")
    parser.add_argument("--curves", type=Path, metavar="OUT.png", help="draw precision over recall (png, pdf or svg)")
    parser.add_argument("--by-distance", action="store_true", help="also AP at depths of 0-30, 30-50 and 50-70 m")
    args = parser.parse_args(argv)
    return run_command(lambda: evaluate(args))


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate the folder, write the files and print the table. Raises FileNotFoundError or ValueError."""
    if args.json is not None and args.json.is_dir():
        raise ValueError(f"{args.json}: is a folder; give the name of a file")
    if args.curves is not None:
        from lib.visualization.panels import check_format  # loads matplotlib

        check_format(args.curves, "--curves")
    overlaps = dict(read_overlaps(text, normalise_classes(args.classes)) for text in args.overlaps)
    ids = None if args.ids is None else read_split(args.ids)
    bands = DISTANCE_BANDS if args.by_distance else ()
    result = evaluate_kitti(args.labels, args.results, ids, args.classes, bands, overlaps)
    if args.json is not None:
        write_json(args.json, result.to_json(), sync=True)
    if args.curves is not None:
        from lib.visualization.evaluation_panels import precision_panels
        from lib.visualization.panels import render_panels

        write_file(args.curves, render_panels(precision_panels(result), args.curves.suffix))
    print(result.table())


def read_overlaps(text: str, classes: Sequence[str]) -> tuple[str, tuple[float, float]]:
    """'Pallet=0.7,0.5' -> ('Pallet', (0.7, 0.5)). Raises ValueError."""
    match = re.fullmatch(r"([^=]+)=(\d*\.?\d+),(\d*\.?\d+)", text, re.ASCII)
    if match is None:
        raise ValueError(f"--overlaps: expected NAME=OFFICIAL,LOOSE such as Pallet=0.7,0.5, got {text!r}")
    own = {cls.lower(): cls for cls in classes if cls not in CLASSES}
    if match[1].lower() not in own:
        raise ValueError(f"--overlaps: expected one of --classes that is not {', '.join(CLASSES)}, got {match[1]!r}")
    return own[match[1].lower()], (float(match[2]), float(match[3]))


if __name__ == "__main__":
    sys.exit(main())
