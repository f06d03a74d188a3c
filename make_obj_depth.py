#!/usr/bin/env python3
"""Paint object-wise depth maps from KITTI labels, before training with general.obj_depth.

Writes training/obj_depth (Car) and training/obj_depth_all (all types), one <id>.npy a frame: float32 (H, W), metres.
With --format npz the maps are stored without loss in 1 to 5 KB instead of 1.9 MB each; training reads either format.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lib.datasets.object_depth import SUFFIXES
from lib.preparation.object_depth_tree import write_object_depth_maps
from lib.system.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--path", metavar="ROOT", default=str(Path(__file__).resolve().parent), help="uses ROOT/data/KITTI"
    )
    parser.add_argument("--dataroot", metavar="DIR", help="a KITTI folder elsewhere; instead of --path")
    parser.add_argument(
        "--force", action="store_true", help="redo all maps; maps older than their label are redone in any case"
    )
    parser.add_argument(
        "--format",
        choices=[suffix[1:] for suffix in SUFFIXES],
        default="npy",
        help="npy (default), as the official code reads them; npz: compressed. A frame's map of the other format is "
        "deleted when the new one has been written",
    )
    args = parser.parse_args(argv)
    root = Path(args.dataroot) if args.dataroot else Path(args.path) / "data" / "KITTI"
    return run_command(lambda: print(write_object_depth_maps(root, args.force, f".{args.format}")))


if __name__ == "__main__":
    sys.exit(main())
