"""Average precision of a folder of KITTI result files, by the protocol of KITTI's devkit, on the CPU.

    python tools/evaluate_kitti.py --labels data/KITTI/training/label_2 --results outputs/data \
        --ids data/KITTI/ImageSets/val.txt --bootstrap --json ap.json --curves ap.png
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lib.evaluation.command import add_options, evaluate, to_text, write_files
from lib.system.commands import run_command
from lib.system.files import write_file


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(prog="evaluate_kitti", description=(__doc__ or "").splitlines()[0])
    add_options(parser)
    parser.add_argument("--curves", type=Path, metavar="OUT.png", help="draw precision over recall (png, pdf or svg)")
    intervals = "draw AP40 with intervals, and the differences of --against (png, pdf or svg)"
    parser.add_argument("--intervals", type=Path, metavar="OUT.png", help=intervals)
    args = parser.parse_args(argv)
    return run_command(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Evaluate the folder, write the files and print the table. Raises FileNotFoundError or ValueError."""
    for path, option in ((args.curves, "--curves"), (args.intervals, "--intervals")):
        if path is not None:
            from lib.visualization.panels import check_format  # loads matplotlib

            check_format(path, option)
    if args.intervals is not None and not (args.bootstrap or args.against):
        raise ValueError("--intervals needs --bootstrap or --against")
    evaluation = evaluate(args, (args.curves, args.intervals))
    write_files(args, evaluation, write_file)
    if args.curves is not None:
        from lib.visualization.evaluation_panels import precision_panels
        from lib.visualization.panels import render_panels

        write_file(args.curves, render_panels(precision_panels(evaluation.result), args.curves.suffix))
    if args.intervals is not None:
        from lib.visualization.intervals import render_intervals

        names = str(args.results), str(args.against)
        write_file(args.intervals, render_intervals(evaluation.result, evaluation.other, names, args.intervals.suffix))
    print(to_text(args, evaluation))


if __name__ == "__main__":
    sys.exit(main())
