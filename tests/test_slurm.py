"""Comparisons on a cluster: options, commands for another scheduler, and runs on a real Slurm of one node."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.comparison import slurm
from lib.comparison.slurm import TrainingJob, parse_parameters
from tests.conftest import PATIENCE, PROJECT, wait_until
from tests.test_compare import call, folder, started, tables  # noqa: F401  (a fixture)
from tests.test_distributed import free_port
from tools import compare

submitit = pytest.importorskip("submitit")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["partition=gpu", "time=90", "gpus=2"], {"partition": "gpu", "time": 90, "gpus_per_node": 2}),
        (["--cpus-per-task=8", "time=12:00:00"], {"cpus_per_task": 8, "time": 720}),
        (["mem=32G", "time=2-01:30:00"], {"mem": "32G", "time": 2 * 24 * 60 + 90}),
        (["time=10:01"], {"time": 11}),
    ],
)
def test_options_of_sbatch(settings, expected):
    assert parse_parameters(settings) == expected


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["partition=gpu"], r"the time limit of a run is missing; expected time=MINUTES or time=\[DAYS-\]HOURS"),
        (["time=soon"], "got time=soon; expected time=MINUTES"),
        (["time=5", "gpu"], "--slurm gpu: expected name=value"),
    ],
)
def test_options_that_sbatch_has_not(settings, said):
    with pytest.raises(ValueError, match=said):
        parse_parameters(settings)


def test_what_is_missing_is_named(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: -1))
    assert call("--slurm", "time=5") == 2
    assert 'Could not detect "srun"' in capsys.readouterr().err
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    assert call("--slurm", "time=5", "colour=red") == 2
    assert "Unavailable parameter(s): ['colour']" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert call("--slurm", "time=5") == 2
    assert "--slurm needs the package submitit: pip install submitit" in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_a_plan_is_a_command_for_each_missing_run(folder, capsys):  # noqa: F811
    assert call("--plan") == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 4 and not (folder / "out").exists()
    for command in commands[:3]:
        subprocess.run(command, shell=True, check=True, cwd="/")
    assert call("--plan") == 0
    assert capsys.readouterr().out.splitlines() == commands[3:]
    subprocess.run(commands[3], shell=True, check=True, cwd="/")
    assert call("--plan") == 0 and capsys.readouterr().out.strip() == ""
    assert call("--report-only") == 0 and "4 of 4 runs are finished" in capsys.readouterr().out


@pytest.fixture
def queue(monkeypatch):
    """Stands in for Slurm: a job runs when it is submitted; ``held`` ones stay in the queue."""
    queue = SimpleNamespace(held=set(), submitted=[])

    def submit_array(executor, jobs):
        first = len(queue.submitted)
        queue.submitted += [job.name for job in jobs]
        for job in jobs:
            if job.name not in queue.held:
                with contextlib.suppress(ChildProcessError):
                    job()
        return [SimpleNamespace(job_id=f"7_{first + k}") for k in range(len(jobs))]

    def active_jobs(self):
        return {f"7_{k}" for k, name in enumerate(queue.submitted) if name in queue.held}

    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(submitit.SlurmExecutor, "submit_array", submit_array)
    monkeypatch.setattr(slurm.SlurmJobs, "_active_jobs", active_jobs)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.02)
    return queue


def test_failures_are_named_and_tried_again(folder, queue, capsys):  # noqa: F811
    (folder / "out").mkdir()
    (folder / "out/fail_qi_seed1").touch()
    assert call("--slurm", "time=5", "cpus=3") == 1
    error = capsys.readouterr().err
    assert "qi_seed1: job 7_1 has ended: error: it does not work (all output: " in error and "7_1_0_log.err" in error
    assert queue.submitted == ["plain_seed1", "qi_seed1", "plain_seed2", "qi_seed2"] == started(folder)
    (folder / "out/fail_qi_seed1").unlink()
    assert call("--slurm", "time=5") == 0 and queue.submitted[4:] == ["qi_seed1"]
    assert "4 of 4 runs are finished" in capsys.readouterr().out


def test_jobs_in_the_queue_are_not_submitted_again(folder, queue, capsys):  # noqa: F811
    queue.held = {"qi_seed2"}
    timer = threading.Timer(2.0, lambda: os.kill(os.getpid(), signal.SIGTERM))
    timer.start()
    assert call("--slurm", "time=5") == 143
    assert "the jobs go on; the same command waits for them, `scancel 7` ends them" in capsys.readouterr().err
    assert json.loads((folder / "out/logs/slurm_jobs.json").read_text())["qi_seed2"] == "7_3"
    threading.Timer(1.0, lambda: (run_held(folder), queue.held.clear())).start()
    assert call("--slurm", "time=5") == 0 and len(queue.submitted) == 4
    assert "qi_seed2: job 7_3 (submitted before)" in capsys.readouterr().out


def run_held(folder):  # noqa: F811
    out, base = folder / "out", folder / "base.yaml"
    names = ["general.exp_name=qi_seed2", "general.random_seed=2", "general.qi=true", "general.qi_weight=0.5"]
    names += ["tester.checkpoint=checkpoint_epoch_1.pth", f"general.dataroot={folder / 'KITTI'}"]
    command = [sys.executable, str(folder / "stand_in.py"), "--config", str(base), "--set", *names]
    subprocess.run(command, cwd=out, check=True)


def test_a_job_saves_before_its_time_limit_and_continues(tmp_path):
    """The signal of submitit does not reach the run; SIGTERM does."""
    script = tmp_path / "run.py"
    script.write_text(
        "import signal, sys, time\nfrom pathlib import Path\n"
        "signal.signal(signal.SIGTERM, lambda *_: (Path('saved').touch(), sys.exit(143)))\n"
        "Path('ready').touch()\nwhile not Path('saved').exists():\n    time.sleep(0.02)\n"
    )
    job = TrainingJob("a", [sys.executable, str(script)], tmp_path)
    errors = []

    def run():
        try:
            job()
        except ChildProcessError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until((tmp_path / "ready").exists)
    os.kill(job.process.pid, signal.SIGUSR2)
    again = job.checkpoint()
    thread.join(PATIENCE)
    assert (tmp_path / "saved").exists() and errors == ["a: status 143: " + errors[0].partition("143: ")[2]]
    assert again.function.command == job.command and not hasattr(again.function, "process")
    again.function()  # what is queued again: the run has nothing left to do


# ------------------------------------------------------------------------------------------------------ a real cluster

TRAIN = f"""
# tools/train_val.py that waits inside the second epoch of a run, as long as there is a file of its name
import sys, time
from pathlib import Path
sys.path.insert(0, {str(PROJECT)!r})
from lib.engine.trainer import Trainer
from tools import train_val
step = Trainer.step
def wait_then_step(trainer, *arguments):
    hold = Path("hold_" + trainer.config.general.exp_name)
    while hold.exists() and trainer.progress.epoch == 1:
        Path("waiting_" + hold.name).touch()
        time.sleep(0.05)
    return step(trainer, *arguments)
Trainer.step = wait_then_step
sys.exit(train_val.main())
"""
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture
def cluster(monkeypatch):
    """munged, slurmctld and slurmd on the loopback; the path is short, since a socket's must be."""
    programs = [shutil.which(name) for name in ("munged", "slurmctld", "slurmd", "sbatch")]
    if not all(programs) or os.geteuid():
        pytest.skip("needs root, and the packages slurm-wlm and munge")
    folder = Path(f"/tmp/slurm_test_{os.getpid()}")  # noqa: F811
    for each in (folder, folder / "state", folder / "spool"):
        each.mkdir(mode=0o755)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, ports=[free_port(), free_port()]))
    files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
    options = [f"--{option}={folder / name}" for option, name in (files | {"seed-file": "munge.seed"}).items()]
    monkeypatch.setenv("SLURM_CONF", str(conf))
    try:
        subprocess.run([programs[0], "--force", *options], check=True)
        subprocess.run([programs[1], "-f", str(conf)], check=True)
        subprocess.run([programs[2], "-f", str(conf)], check=True)
        wait_until(lambda: "idle" in command("sinfo", "--noheader", "--format=%T"))
        yield folder
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            command("scancel", "--user=root")
        for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                os.kill(int((folder / name).read_text()), signal.SIGTERM)
        shutil.rmtree(folder, ignore_errors=True)


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_killed_job_that_is_queued_again_gives_the_tables_of_an_undisturbed_comparison(
    cluster,
    folder,  # noqa: F811
    monkeypatch,
    capsys,
):
    (folder / "train.py").write_text(TRAIN)
    monkeypatch.setattr(compare, "TRAIN_VAL", folder / "train.py")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 1.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = ("--set", "trainer.max_epoch=3", "--bootstrap", "50")
    assert call("--jobs", "1", *settings) == 0
    (folder / "out").rename(folder / "undisturbed")
    (folder / "out").mkdir()
    (folder / "out/hold_qi_seed1").touch()
    queue: list[str] = []

    def kill_and_queue_again():
        wait_until((folder / "out/waiting_hold_qi_seed1").exists)
        job = json.loads((folder / "out/logs/slurm_jobs.json").read_text())["qi_seed1"]
        command("scancel", "--signal=KILL", job)
        wait_until(lambda: job not in command("squeue", "--noheader", "--array", "--format=%i").split())
        (folder / "out/hold_qi_seed1").unlink()
        queue.append(command("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T"))
        command("scontrol", "requeue", job)
        (folder / "out/hold_plain_seed1").unlink()

    (folder / "out/hold_plain_seed1").touch()  # so that the comparison has another job to wait for
    thread = threading.Thread(target=kill_and_queue_again)
    thread.start()
    status = call("--slurm", "partition=test", "time=20", "cpus=1", *settings)
    thread.join(PATIENCE)
    said = capsys.readouterr()
    assert status == 0 and len(queue) == 1, said.err
    log = (folder / "out/logs/qi_seed1.log").read_text()
    assert log.count("--- ") == 2 and "resuming from" in log, log
    assert tables(folder / "out") == tables(folder / "undisturbed")
    print(*queue, said.out[-2000:], said.err[-2000:], log[-500:])
