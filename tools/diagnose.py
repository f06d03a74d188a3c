#!/usr/bin/env python3
"""Which predicted quantity costs most AP, and what the representation itself costs.

    python tools/diagnose.py --config x.yaml --checkpoint c.pth --out DIR
    python tools/diagnose.py --ceiling --config x.yaml --out DIR

The first runs the network once, then replaces each quantity by ground truth and evaluates again (MonoDLE, section 3.3).
The second needs no network: it decodes the targets themselves. With --labels, --calib and --sizes it needs no images
either. docs/diagnose.md explains the tables.
"""

import argparse
import csv
import io
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.analysis.ceiling import Missed, measure_ceiling
from lib.analysis.diagnosis import diagnose_network, frames_of_folders, labelled_frames
from lib.config import Config, load_config
from lib.datasets import build_dataset
from lib.ops.text import counted
from lib.system.commands import run_command, setup_logging, show_progress
from lib.system.files import write_file, write_json
from lib.visualization.evaluation_panels import depth_error_panels
from lib.visualization.oracle import oracle_png
from lib.visualization.panels import render_panels

logger = logging.getLogger("lib.tools.diagnose")
ORACLE_FILES = ("oracle.txt", "oracle.json", "oracle.png", "depth_error.png")
CEILING_FILES = ("ceiling.txt", "ceiling.json", "missed.csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="X.yaml", help="the experiment")
    parser.add_argument("--checkpoint", metavar="C.pth", help="weights; also looked for in the run's folder")
    parser.add_argument("--ceiling", action="store_true", help="diagnose the representation instead of a network")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder for tables and plots")
    parser.add_argument("--split", metavar="NAME", help="a list in ImageSets; default: tester.split")
    parser.add_argument("--max-frames", type=int, default=0, metavar="N", help="only the first N frames of the split")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="with --ceiling: label files instead of dataroot's")
    parser.add_argument("--calib", type=Path, metavar="DIR", help="with --labels: calibrations")
    parser.add_argument("--sizes", type=Path, metavar="FILE.csv", help="with --labels: id,width,height of each image")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier diagnosis in DIR")
    keys = "override keys of the YAML"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=keys)
    args = parser.parse_args(argv)
    return run_command(lambda: diagnose(args))


def diagnose(args: argparse.Namespace) -> None:
    """Raises FileNotFoundError or ValueError for what is missing, broken or does not fit together."""
    setup_logging()
    folders = [args.labels, args.calib, args.sizes]
    if args.ceiling == (args.checkpoint is not None):
        raise ValueError("give either --checkpoint, to diagnose a network, or --ceiling, for the representation alone")
    if any(folders) and not (args.ceiling and all(folders)):
        raise ValueError("--labels, --calib and --sizes go together, and with --ceiling")
    if args.max_frames < 0:
        raise ValueError(f"--max-frames must be >= 1, or 0 for all, got {args.max_frames}")
    config = load_config(args.config, args.set)
    split = config.tester.split if args.split is None else args.split
    if split == "test":
        raise ValueError("split test has no labels to compare with; --split val, for example")
    files = CEILING_FILES if args.ceiling else ORACLE_FILES
    existing = [name for name in files if (args.out / name).exists()]
    if existing and not args.overwrite:
        raise ValueError(f"{args.out / existing[0]} exists already; --overwrite replaces it")
    if args.ceiling:
        write_ceiling(args, config, split)
    else:
        write_diagnosis(args, config, split)
    logger.info("saved in %s: %s", args.out, ", ".join(files))


def write_diagnosis(args: argparse.Namespace, config: Config, split: str) -> None:
    """oracle.txt, oracle.json, oracle.png, depth_error.png."""
    checkpoint, n_frames, oracle = diagnose_network(config, args.checkpoint, split, args.max_frames)
    title = f"{checkpoint}, {counted(n_frames, 'frame')} of {split}"
    text = "\n\n".join([title, oracle.table(), *(errors.table() for errors in oracle.depth_errors)])
    tree = {"checkpoint": str(checkpoint), "split": split, "frames": n_frames, "replaced": oracle.to_json()}
    logger.info("%s", text)
    write_file(args.out / "oracle.txt", (text + "\n").encode())
    write_json(args.out / "oracle.json", {**tree, "depth_errors": [errors.to_json() for errors in oracle.depth_errors]})
    write_file(args.out / "oracle.png", oracle_png(oracle))
    write_file(args.out / "depth_error.png", render_panels(depth_error_panels(oracle.depth_errors), columns=2))


def write_ceiling(args: argparse.Namespace, config: Config, split: str) -> None:
    """ceiling.txt, ceiling.json, and missed.csv with a line for each label that is not reached."""
    if args.labels:
        frames = frames_of_folders(config, split, args.max_frames, args.labels, args.calib, args.sizes)
    else:
        frames = labelled_frames(build_dataset(config, split, max_frames=args.max_frames))
    bar = show_progress(frames, "ceiling", leave=False)
    ceilings = measure_ceiling(bar, config)
    header = f"{counted(len(frames), 'frame')}, ideal outputs: targets decoded as if they were outputs"
    text = "\n\n".join([header, *(ceiling.table() for ceiling in ceilings)])
    logger.info("%s", text)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Missed._fields)
    writer.writerows(missed for ceiling in ceilings for missed in ceiling.missed)
    write_file(args.out / "ceiling.txt", (text + "\n").encode())
    write_json(args.out / "ceiling.json", {"frames": len(frames), "classes": [c.to_json() for c in ceilings]})
    write_file(args.out / "missed.csv", table.getvalue().encode())


if __name__ == "__main__":
    sys.exit(main())
