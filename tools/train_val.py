#!/usr/bin/env python3
"""Train a detector from one YAML file, then evaluate it; with -e, evaluate only.

Several GPUs: list them in trainer.gpu_ids, or run `torchrun --nproc_per_node=N tools/train_val.py --config x.yaml`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import load_config
from lib.engine.device import existing_gpus
from lib.engine.distributed import end_process, launch, own_rank, record_error, started_by_torchrun
from lib.engine.run_folder import find_run_config, require_own_folder
from lib.pipeline.checkpoints import NEWEST
from lib.pipeline.run import check_inputs, run_experiment
from lib.system.commands import outlast_output, run_command
from lib.system.interruption import Interruption


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, 2 for bad input, 1 for a run that failed, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Everything goes to outputs/<exp_name>/ below the working directory: config.yaml, train.log, "
        "metrics.jsonl, environment.json, curves.png, report.html (all on one page), checkpoints/, "
        "results/<checkpoint>/<split>/ (KITTI text files, ap.json, depth_error.json, some images).",
    )
    experiment = "the experiment, or config.yaml of a run; -e needs none where outputs/ has one run only"
    parser.add_argument("--config", metavar="X.yaml", help=experiment)
    parser.add_argument(
        *("-e", "--e", "--evaluate_only"),
        dest="evaluate_only",
        action="store_true",
        help="evaluate tester.checkpoint (or the run's newest) without training",
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="SECTION.KEY=VALUE", help="override keys of the YAML"
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start again; an earlier run of this name is moved to <exp_name>.old (.old2, ..)",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const=NEWEST,
        metavar="PATH",
        help="continue an interrupted run: from its newest readable checkpoint (from the beginning where there is "
        "none), or from PATH",
    )
    args = parser.parse_args(argv)
    if args.config is None and not args.evaluate_only:
        parser.error("the following arguments are required: --config")
    interruption = Interruption(announce=own_rank() == 0)

    def train_val() -> int:
        path = Path(args.config) if args.config else find_run_config()
        config = load_config(path, args.set)
        if args.evaluate_only:
            require_own_folder(path, config)
        processes = len(existing_gpus(config.trainer.gpu_ids))
        if processes > 1 and not started_by_torchrun():
            check_inputs(config, args.evaluate_only, args.overwrite, args.resume)
            return launch(processes, Path(__file__), sys.argv[1:] if argv is None else argv)
        with outlast_output():
            run_experiment(config, args.evaluate_only, args.overwrite, args.resume, interruption)
        return 0

    return run_command(train_val, interruption, record_error)


if __name__ == "__main__":
    end_process(main())
