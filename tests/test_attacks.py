"""What a small container, a killed process or a damaged file must not do: end in a hang, a traceback or a lost run."""

import os
import signal

import pytest

from tests.conftest import descendants, is_running, wait_until
from tests.test_interruption import Run, checkpoint, folder  # noqa: F401


def start_training(folder, *arguments):  # noqa: F811
    """A long training with two loader processes, in its second epoch or later."""
    run = Run(folder, "long", "trainer.max_epoch=100000", "trainer.eval_frequency=0", *arguments, workers=2)
    metrics = run.run_dir / "metrics.jsonl"
    run.wait_until(lambda: metrics.is_file() and metrics.read_text(), "epoch")
    return run, descendants(run.process.pid)


def test_a_killed_loader_process_ends_the_run_with_one_line_after_saving(folder):  # noqa: F811
    run, workers = start_training(folder)
    os.kill(workers[0], signal.SIGKILL)
    assert run.wait() == 1, run.said()
    said = run.said()
    assert "Traceback" not in said and "loader process" in said.splitlines()[-1], said
    assert f"(pid {workers[0]}) was killed by SIGKILL" in said.splitlines()[-1] and "saved as" in said
    wait_until(lambda: not any(map(is_running, workers)))
    before = checkpoint(run.run_dir)
    resumed = Run(folder, "long", "--resume", f"trainer.max_epoch={before['epoch'] + 1}", workers=2)
    assert resumed.wait() == 0, resumed.said()


def test_a_silent_loader_process_does_not_outlast_a_signal(folder):  # noqa: F811
    """A stopped process neither answers nor ends; the run saves, and ends it."""
    run, workers = start_training(folder)
    os.kill(workers[0], signal.SIGSTOP)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait() == 143, run.said()
    assert "Traceback" not in run.said() and "continue with the same command and --resume" in run.said()
    wait_until(lambda: not any(map(is_running, workers)))
