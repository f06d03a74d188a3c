"""``tools/train_val.py`` that awaits a signal in the middle of WAIT_INSIDE ("run epoch"), however slow the test is."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lib.engine.distributed import end_process
from lib.engine.trainer import Trainer
from tools import train_val

step = Trainer.step


def wait_then_step(trainer, *arguments):
    place = f"{trainer.config.general.exp_name} {trainer.progress.epoch}"
    inside = place == os.environ["WAIT_INSIDE"] and trainer.progress.frames_done >= 4
    while inside and trainer.interruption.signum is None:
        time.sleep(0.02)
    return step(trainer, *arguments)


if __name__ == "__main__":
    Trainer.step = wait_then_step
    train_val.__file__ = __file__  # which it starts itself where there are several gpu_ids
    end_process(train_val.main())
