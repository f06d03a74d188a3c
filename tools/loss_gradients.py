#!/usr/bin/env python3
"""How large each loss's gradient is beside those of the other losses, and how far the object descriptors are from the
bounds of DDML's loss. One checkpoint, or several, such as those of all epochs of a run.

    python tools/loss_gradients.py --config x.yaml --checkpoints outputs/x/checkpoints/checkpoint_epoch_*.pth --out DIR

writes DIR/loss_gradients.json and DIR/loss_gradients.png and prints a table, which docs/loss_gradients.md explains.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.analysis.loss_gradients import gradients_table, load_training_model, measure_loss_gradients
from lib.config import load_config
from lib.datasets import build_dataset
from lib.engine.device import choose_device
from lib.ops.text import natural_key
from lib.system.commands import run_command, setup_logging
from lib.system.files import write_file, write_json
from lib.visualization.loss_gradients import loss_gradients_png

FIGURES, IMAGE = "loss_gradients.json", "loss_gradients.png"


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, metavar="X.yaml", help="its losses, data and batches are used")
    parser.add_argument("--checkpoints", required=True, nargs="+", type=Path, metavar="C.pth")
    parser.add_argument("--batches", type=int, default=25, metavar="N", help="training batches; default: %(default)s")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help=f"for {FIGURES} and {IMAGE}")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier call")
    keys = "override keys of the YAML, such as general.qi=true for a network that was trained without this loss"
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help=keys)
    args = parser.parse_args(argv)
    return run_command(lambda: loss_gradients(args))


def loss_gradients(args: argparse.Namespace) -> None:
    """Raises FileNotFoundError or ValueError for what is missing or does not fit."""
    setup_logging()
    if args.batches < 1:
        raise ValueError(f"--batches must be >= 1, got {args.batches}")
    existing = [path for path in (args.out / FIGURES, args.out / IMAGE) if path.exists()]
    if existing and not args.overwrite:
        raise ValueError(f"{existing[0]} exists already; --overwrite replaces it")
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out must be a folder; {args.out} is a file")
    paths = args.checkpoints
    if len({path.parent for path in paths}) == 1:  # of one run: *.pth lists epoch 10 before epoch 2
        paths = sorted(paths, key=lambda path: natural_key(path.name))
    stems = [path.stem for path in paths]
    names = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    config = load_config(args.config, args.set)
    for path in paths:  # before the first is measured, so that an error in the last comes at once
        load_training_model(path, config)
    frames = build_dataset(config, config.dataset.train_split, training=True)
    device = choose_device(config.trainer.gpu_ids)
    each = zip(names, paths, strict=True)
    measured = [measure_loss_gradients(name, path, config, frames, args.batches, device) for name, path in each]
    image = loss_gradients_png(measured)
    content = [{"checkpoint": str(path), **one.figures()} for path, one in zip(paths, measured, strict=True)]
    write_json(args.out / FIGURES, content)
    write_file(args.out / IMAGE, image)
    print(gradients_table(measured))
    print(f"\nfigures: {args.out / FIGURES}\nimage: {args.out / IMAGE}")


if __name__ == "__main__":
    sys.exit(main())
