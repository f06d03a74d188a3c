"""Runs in processes of their own that are interrupted and killed; what they resume to is compared bit by bit."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import make_obj_depth
from lib.engine import trainer
from lib.engine.checkpoint import read_checkpoint
from lib.engine.run_folder import newest_checkpoint
from lib.system import lock as run_lock
from lib.system.interruption import Interrupted, Interruption
from lib.system.lock import lock
from tests.conftest import PATIENCE, PROJECT, wait_until
from tools import train_val

YAML = """
general: {random_seed: 3, qi: true, obj_depth: true}
dataset:
  {batch_size: 2, num_workers: 0, resolution: [320, 96], writelist: [Car, Pedestrian], color_jitter: [0.2, 0.2, 0.2, 0]}
model: {backbone: dla34_narrow, pretrained: false}
lr_scheduler: {warmup_epochs: 2}
trainer: {max_epoch: 3, save_frequency: 2, eval_frequency: 2, save_interval_minutes: 1.0e-9, report: false}
tester: {threshold: 0.0, topk: 5, map_to_image: exact, images: 0}
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
ENVIRONMENT = {name: value for name, value in ENVIRONMENT.items() if name not in ("RANK", "WORLD_SIZE")}
ENVIRONMENT["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(4 * PATIENCE)  # ranks must end without torchrun's SIGKILL


@pytest.fixture
def folder(tiny_kitti, tmp_path, monkeypatch):
    """Working directory with experiment and data; the four frames appear three times, as twelve."""
    monkeypatch.chdir(tmp_path)
    training = tiny_kitti / "training"
    for k in range(4, 12):
        for name, suffix in (("image_2", "png"), ("calib", "txt"), ("label_2", "txt")):
            shutil.copy(training / name / f"{k % 4:06d}.{suffix}", training / name / f"{k:06d}.{suffix}")
    (tiny_kitti / "ImageSets/train.txt").write_text("".join(f"{k:06d}\n" for k in range(12)))
    (tmp_path / "tiny.yaml").write_text(YAML)
    assert make_obj_depth.main(["--dataroot", str(tiny_kitti)]) == 0
    return tmp_path


class Run:
    """``tools/train_val.py`` in a process; in the middle of epoch ``wait_in``, if given, it waits for a signal."""

    def __init__(self, folder: Path, name: str, *arguments: str, workers=0, prefix=(), wait_in: int | None = None):
        self.run_dir = folder / "outputs" / name
        settings = [f"general.exp_name={name}", f"general.dataroot={folder / 'KITTI'}"]
        settings += [f"dataset.num_workers={workers}", *(a for a in arguments if "=" in a)]
        script = "tools/train_val.py" if wait_in is None else "tests/waiting_train_val.py"
        command = [*(prefix or (sys.executable,)), str(PROJECT / script), "--config", "tiny.yaml"]
        command += [a for a in arguments if "=" not in a]
        self.log = folder / f"{name}.log"
        options = {"cwd": folder, "env": ENVIRONMENT | {"WAIT_INSIDE": f"{name} {wait_in}"}}
        with self.log.open("ab") as log:
            options |= {"stdout": log, "stderr": log, "start_new_session": True}
            self.process = subprocess.Popen([*command, "--set", *settings], **options)

    def signal(self, signum: int) -> None:
        """To the whole process group, as terminals and torchrun do it; the loaders get it too."""
        os.killpg(self.process.pid, signum)

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def wait_until(self, condition, what: str) -> None:
        wait_until(condition, self.process, said=lambda: f"no {what}:\n{self.said()}")


def checkpoint(run_dir: Path, name: str = "checkpoint_last.pth") -> dict:
    return read_checkpoint(run_dir / "checkpoints" / name)


def equal(a, b) -> bool:
    """Nested containers, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer, best AP of all checkpoints, logged metrics, and detections; and nothing half written."""
    names = sorted(p.name for p in (one / "checkpoints").iterdir())
    assert sorted(p.name for p in (other / "checkpoints").iterdir()) == names
    for name in names:
        a, b = (checkpoint(folder, name) for folder in (one, other))
        keys = ("epoch", "model_state", "model_state_without_ema", "optimizer_state", "best")
        assert all(equal(a.get(key), b.get(key)) for key in keys), name
    records = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, other)
    ]
    for record in [*records[0], *records[1]]:
        del record["samples_per_second"]
    assert records[0] == records[1]
    results = [
        {str(p.relative_to(folder)): p.read_text() for p in (folder / "results").rglob("*.txt")}
        for folder in (one, other)
    ]
    assert results[0] == results[1] and results[0]
    assert not [p for folder in (one, other) for p in folder.rglob(".*")]


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_interrupted_inside_an_epoch_and_resumed(folder, workers):
    """SIGTERM or Ctrl-C in an epoch, kill -9 in the next attempt, then to the end."""
    more = ["trainer.accumulate=2", "trainer.ema=0.5", "optimizer.clip_grad_norm=9", "lr_scheduler.type=cosine"]
    more = more if workers else []
    whole = Run(folder, "whole", *more, workers=workers)
    assert whole.wait() == 0, whole.said()
    run = Run(folder, "parts", *more, workers=workers, wait_in=0)
    run.wait_until((run.run_dir / "checkpoints/checkpoint_last.pth").is_file, "checkpoint")
    signum, status = (signal.SIGTERM, 143) if workers else (signal.SIGINT, 130)
    run.signal(signum)
    assert run.wait() == status, run.said()
    assert "finishing this step, then saving" in run.said() and "same command and --resume" in run.said()
    assert "Traceback" not in run.said()
    state = checkpoint(run.run_dir)
    assert state["epoch"] == 0 and 0 < state["progress"]["frames_done"] < 12
    run = Run(folder, "parts", "--resume", *more, workers=workers, wait_in=1)
    run.wait_until(lambda: checkpoint(run.run_dir)["epoch"] == 1, "second epoch")
    run.process.kill()
    assert run.wait() == -9
    run = Run(folder, "parts", "--resume", *more, workers=workers)
    assert run.wait() == 0, run.said()
    assert "Traceback" not in run.said()
    assert_same_run(whole.run_dir, run.run_dir)
    if workers:
        return
    # a run that is complete has nothing left to do
    again = Run(folder, "parts", "--resume", workers=workers)
    assert again.wait() == 0, again.said()
    assert_same_run(whole.run_dir, again.run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_moments(folder, workers):
    """At least 12 kills of each kind of loader, each at a random moment of the process's life."""
    rng = random.Random(workers)
    began = time.monotonic()
    whole = Run(folder, "whole", workers=workers)
    assert whole.wait() == 0, whole.said()
    life = time.monotonic() - began
    kills, runs = 0, 0
    while kills < 12:
        runs += 1
        name = f"killed{runs}"
        while True:
            run = Run(folder, name, "--resume", workers=workers)
            signum = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
            try:
                status = run.process.wait(rng.uniform(0.4, 1.0) * life)
            except subprocess.TimeoutExpired:
                run.signal(signum)
                status = run.wait()
                kills += status != 0
                life *= 1.1  # the machine may have become slower: it must get further in the end
                # -15, -2: before the command could catch signals
                assert status in (0, 130, 143, -2, -9, -15), run.said()
            if status == 0:
                life *= 0.7
                break
        assert_same_run(whole.run_dir, run.run_dir)
        assert "skipped" not in run.said()
    print(f"{kills} kills, {runs} runs, {workers} workers")


def test_a_second_ctrl_c_quits_at_once(tmp_path):
    code = (
        "import sys\nfrom lib.system.interruption import Interruption\n"
        "with Interruption() as i, i.deferred():\n    print('in', flush=True)\n    sys.stdin.read()\n"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, text=True, **pipes)
    assert process.stdout.readline() == "in\n"
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n" and "Ctrl-C again quits at once" in process.stderr.readline()
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == -signal.SIGINT
    process.communicate()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_is_stored_even_where_python_drops_the_exception():
    class Closed:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with Interruption(announce=False) as interruption:
        Closed()
        assert interruption.signum == signal.SIGTERM


def test_signals_wait_inside_and_raise_outside():
    with Interruption() as interruption:
        with interruption.deferred():
            signal.raise_signal(signal.SIGTERM)
            assert interruption.signum == signal.SIGTERM
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.status == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_broken_checkpoints_are_passed_over(folder, caplog, capsys):
    def train(name, *arguments):
        settings = [f"general.exp_name={name}", f"general.dataroot={folder / 'KITTI'}"]
        settings += ["trainer.max_epoch=2", "trainer.save_frequency=1", "trainer.save_interval_minutes=0"]
        status = train_val.main(["--config", "tiny.yaml", *arguments, "--set", *settings])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert train("run")[0] == 0
    run_dir = folder / "outputs/run"
    folder_of_checkpoints = run_dir / "checkpoints"
    for name in ("checkpoint_last.pth", "checkpoint_epoch_2.pth"):
        path = folder_of_checkpoints / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    for path in folder_of_checkpoints.glob("*best*"):
        path.unlink()
    assert newest_checkpoint(run_dir) == folder_of_checkpoints / "checkpoint_epoch_1.pth"
    assert "checkpoint skipped: " in caplog.text and "checkpoint_last.pth: not a readable checkpoint" in caplog.text
    status, said = train("run", "--resume")
    assert status == 0
    assert "checkpoint_last.pth: not a readable checkpoint" in said and "after epoch 1" in said
    status, said = train("whole", "--resume")
    assert status == 0 and "has no checkpoint yet; starting from the beginning" in said
    assert_same_run(folder / "outputs/whole", run_dir)
    files = list(folder_of_checkpoints.iterdir())
    for path in files:
        path.write_bytes(b"PK")
    status, said = train("run", "--resume")
    assert status == 2
    assert f"none of its {len(files)} checkpoints can be read; start again with --overwrite" in said


@pytest.mark.parametrize("interval", ["0", "1.0e-9"])
def test_reading_figures_late_changes_nothing(folder, monkeypatch, capsys, interval):
    """As on a GPU, where the host is a step ahead of the losses it reads: interrupted and resumed there too."""

    def train(name, *arguments):
        settings = [f"general.exp_name={name}", f"general.dataroot={folder / 'KITTI'}", "trainer.max_epoch=2"]
        settings += [f"trainer.save_interval_minutes={interval}"]
        return train_val.main(["--config", "tiny.yaml", *arguments, "--set", *settings])

    assert train("whole") == 0
    monkeypatch.setattr(trainer, "steps_in_flight", lambda device: 1)
    steps, step = [], trainer.Trainer.step

    def interrupted_in_the_third(*arguments):
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGTERM)
        return step(*arguments)

    monkeypatch.setattr(trainer.Trainer, "step", interrupted_in_the_third)
    assert train("parts") == 143
    assert len(steps) == 4  # one later, since it is read one later
    assert checkpoint(folder / "outputs/parts")["progress"]["frames_done"] == 8
    assert train("parts", "--resume") == 0
    assert_same_run(folder / "outputs/whole", folder / "outputs/parts")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    """A limit on the size of files, in a process of its own, stands in for the disk."""
    code = """
import resource, sys, torch
from pathlib import Path
from lib.engine.checkpoint import read_checkpoint, save_checkpoint
model, path = torch.nn.Linear(1000, 1000), Path(sys.argv[1])
save_checkpoint(path, model, torch.optim.Adam(model.parameters()), 1, {}, None)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
try:
    save_checkpoint(path, model, torch.optim.Adam(model.parameters()), 2, {}, None)
except OSError as error:
    print(error)
print(read_checkpoint(path)["epoch"], [p.name for p in path.parent.iterdir()])
"""
    path = tmp_path / "x" / "a.pth"
    done = subprocess.run([sys.executable, "-c", code, path], cwd=PROJECT, capture_output=True, text=True, check=True)
    error, state = done.stdout.splitlines()
    assert "this checkpoint could not be written: File too large" in error and "a.pth" in error
    assert state == "1 ['a.pth']"


@pytest.mark.slow
def test_a_full_disk_ends_the_run_and_leaves_the_old_checkpoint(folder):
    """A limit on the size of files stands in for the disk; the first epoch's save succeeds."""
    arguments = ("trainer.save_interval_minutes=0", "trainer.max_epoch=1")
    run = Run(folder, "run", *arguments)
    assert run.wait() == 0, run.said()
    before = (run.run_dir / "checkpoints/checkpoint_last.pth").read_bytes()
    limit = len(before) // 2
    arguments = ("trainer.save_interval_minutes=0", "trainer.max_epoch=2", "--resume")
    script = folder / "limited.py"
    script.write_text(
        f"import resource, runpy, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    failed = Run(folder, "run", *arguments, prefix=(sys.executable, str(script)))
    assert failed.wait() == 2, failed.said()
    last = failed.said().strip().splitlines()[-1]
    assert "checkpoint_last.pth" in last and "this checkpoint could not be written: File too large" in last
    assert (run.run_dir / "checkpoints/checkpoint_last.pth").read_bytes() == before
    assert not list(run.run_dir.rglob(".*"))


def test_forked_children_do_not_keep_the_handlers():
    """Else a loader or a pool that ends its processes with SIGTERM could wait for ever."""
    with Interruption():
        pid = os.fork()
        if pid == 0:
            os._exit(0 if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL


@pytest.mark.parametrize(("set_before", "heard"), [(signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)])
def test_a_closed_terminal_is_an_interruption_unless_it_is_ignored(set_before, heard):
    """nohup has it ignored; these tests themselves may run below one."""
    inherited = signal.signal(signal.SIGHUP, set_before)
    try:
        with Interruption() as interruption, interruption.deferred():
            signal.raise_signal(signal.SIGHUP)
            assert interruption.signum == heard
    finally:
        signal.signal(signal.SIGHUP, inherited)


HOLD_LOCK = (
    "import sys\nfrom pathlib import Path\nfrom lib.system.lock import lock\n"
    "with lock(Path(sys.argv[1])):\n    print('locked', flush=True)\n    sys.stdin.read()\n"
)


def hold_lock(folder):
    command = [sys.executable, "-c", HOLD_LOCK, folder]
    process = subprocess.Popen(command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    return process


def test_two_runs_do_not_share_a_folder(tmp_path):
    process = hold_lock(tmp_path)
    with pytest.raises(FileExistsError, match="another run is writing there"), lock(tmp_path):
        pass
    process.kill()
    process.communicate()
    with lock(tmp_path):
        pass


def test_a_folder_that_is_moved_while_it_is_locked(tmp_path, monkeypatch):
    """--overwrite of another process moves the folder, with its lock file, and trains in a new one."""
    run, others, lockf = tmp_path / "run", [], run_lock.fcntl.lockf

    def move_first(*arguments):
        if not others:
            run.rename(tmp_path / "run.old")
            others.append(hold_lock(run))
        lockf(*arguments)

    monkeypatch.setattr(run_lock.fcntl, "lockf", move_first)
    with pytest.raises(FileExistsError, match="another run is writing there"), lock(run):
        pass
    others[0].kill()
    others[0].communicate()
    with lock(run):
        pass
