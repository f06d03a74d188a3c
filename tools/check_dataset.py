#!/usr/bin/env python3
"""Read every file of a KITTI tree that training would read, and list what is wrong with it.

Checked are the lists of frames, images (decoded), calibrations, labels, also their columns against each other, and
object-wise depth maps where there are some (painted again and compared). A table for each split counts the labels that
training uses, and the others by reason. --verify compares the training images with KITTI's originals, by checksum.
Exit status: 0 nothing is wrong, 1 something is, 2 the check could not be made.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import CLASS_NAMES, Dataset, load_config
from lib.preparation.tree_check import SPLITS, check_dataset
from lib.system.commands import run_command
from lib.system.files import write_json


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 1 where something is wrong, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataroot", required=True, metavar="DIR", help="KITTI folder (ImageSets/, training/)")
    parser.add_argument("--split", metavar="NAME", help=f"a list in ImageSets; default: {', '.join(SPLITS)}")
    parser.add_argument("--verify", action="store_true", help="are the training images KITTI's originals?")
    parser.add_argument("--show", type=_count, default=10, metavar="N", help="faults to list of each kind; 0: all")
    parser.add_argument("--types", nargs="+", default=[], metavar="NAME", help="own types, besides KITTI's")
    parser.add_argument("--config", metavar="YAML", help="check its lists too, count by its limits; default: official")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all faults there")
    args = parser.parse_args(argv)

    def check() -> int:
        names = (*CLASS_NAMES, *args.types)
        config = Dataset(class_names=names, writelist=names)
        own_splits: tuple[str, ...] = ()
        if args.config:
            experiment = load_config(args.config)
            config, own_splits = experiment.dataset, (experiment.dataset.train_split, experiment.tester.split)
        result = check_dataset(Path(args.dataroot), config, args.split, own_splits, args.verify)
        print(result.report(args.show))
        if args.json:
            write_json(args.json, [{**vars(fault), "path": str(fault.path)} for fault in result.faults])
            print(f"all faults: {args.json}")
        return 1 if result.faults else 0

    return run_command(check)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
