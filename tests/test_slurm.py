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
from lib.comparison.slurm import TrainingJob, parse_options
from tests.conftest import PATIENCE, PROJECT, is_running, wait_until
from tests.test_compare import call, folder, started, tables  # noqa: F401  (a fixture)
from tests.test_distributed import free_port
from tools import compare

submitit = pytest.importorskip("submitit")


@pytest.mark.parametrize(
    ("settings", "minutes", "sbatch"),
    [
        (["partition=gpu", "time=90", "gpus=2"], 90, {"partition": "gpu", "gpus-per-node": "2"}),
        (["--cpus-per-task=8", "time=12:00:00"], 720, {"cpus-per-task": "8"}),
        (["mem_per_cpu=4G", "time=2-01:30:00"], 2 * 24 * 60 + 90, {"mem-per-cpu": "4G"}),
        (["time=10:01", "array_parallelism=3"], 11, {}),
    ],
)
def test_options_of_sbatch(settings, minutes, sbatch):
    options = parse_options(settings)
    assert (options.minutes, options.sbatch) == (minutes, sbatch)
    assert options.parallel == (3 if "array_parallelism=3" in settings else 256)
    assert (options.cpus, options.gpus) == (
        8 if "cpus-per-task" in sbatch else None,
        2 if "gpus=2" in settings else None,
    )
    assert parse_options(["time=1", "gpus=v100:4"]).gpus == 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["partition=gpu"], r"the time limit of a job is missing; expected time=MINUTES or time=\[DAYS-\]HOURS"),
        (["time=soon"], "got time=soon; expected time=MINUTES"),
        (["time=5", "gpu"], "--slurm gpu: expected name=value"),
        (["time=5", "gpus=a"], "gpus-per-node=a: expected a number of GPUs, or TYPE:NUMBER"),
        (["time=5", "cpus=4;touch x"], "cpus-per-task=4;touch x: expected a number of cores"),
        (["time=5", "nodes=2"], "--slurm nodes=2: a job is one run on one machine"),
    ],
)
def test_options_that_sbatch_does_not_have(settings, said):
    with pytest.raises(ValueError, match=said):
        parse_options(settings)


def test_what_is_missing_is_named(folder, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: -1))
    assert call("--slurm", "time=5") == 2
    assert 'Could not detect "srun"' in capsys.readouterr().err
    assert call("--slurm", "time=5", "nodes=2") == 2
    assert "--slurm nodes=2: " in capsys.readouterr().err
    assert call("--plan", "--report-only") == 2
    assert "--plan and --report-only do not go together" in capsys.readouterr().err
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
    assert call("--report-only") == 0 and "finished: 4 of 4 runs" in capsys.readouterr().out


@pytest.fixture
def queue(monkeypatch):
    """Stands in for Slurm: a job runs when it is submitted; ``held`` ones stay in the queue."""
    queue = SimpleNamespace(held=set(), submitted=[], answers=True)

    def submit_array(executor, jobs):
        first = len(queue.submitted)
        queue.submitted += [job.name for job in jobs]
        for job in jobs:
            if job.name not in queue.held:
                with contextlib.suppress(ChildProcessError):
                    job()
        return [SimpleNamespace(job_id=f"7_{first + k}") for k in range(len(jobs))]

    def active_jobs(self):
        if not queue.answers:
            return None
        return {f"7_{k}" for k, name in enumerate(queue.submitted) if name in queue.held}

    monkeypatch.setattr(submitit.SlurmExecutor, "affinity", classmethod(lambda cls: 2))
    monkeypatch.setattr(submitit.SlurmExecutor, "submit_array", submit_array)
    monkeypatch.setattr(slurm.SlurmJobs, "_active_jobs", active_jobs)
    monkeypatch.setattr(slurm, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(slurm, "GRACE_SECONDS", 0.1)
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
    assert "finished: 4 of 4 runs" in capsys.readouterr().out


def test_jobs_in_the_queue_are_not_submitted_again(folder, queue, capsys):  # noqa: F811
    queue.held = {"qi_seed2"}

    def stop():
        wait_until((folder / "out/logs/slurm_jobs.json").is_file)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    assert call("--slurm", "time=5") == 143
    assert "the jobs go on; the same command waits for them, `scancel 7` ends them" in capsys.readouterr().err
    assert json.loads((folder / "out/logs/slurm_jobs.json").read_text())["qi_seed2"] == "7_3"
    queue.answers = False
    assert call("--slurm", "time=5") == 1 and len(queue.submitted) == 4
    assert "squeue does not answer, so it is not known which jobs are still in the queue" in capsys.readouterr().err
    queue.answers = True

    def end_job():
        log = folder / "out/logs/compare.log"  # the job ends only after the command has found it in the queue
        wait_until(lambda: "submitted before" in log.read_text())
        run_held(folder)
        queue.held.clear()

    threading.Thread(target=end_job).start()
    assert call("--slurm", "time=5") == 0 and len(queue.submitted) == 4
    assert "qi_seed2: job 7_3 (submitted before)" in capsys.readouterr().out
    (folder / "out/logs/slurm_jobs.json").write_text("[")
    shutil.rmtree(folder / "out/outputs/qi_seed1")
    assert call("--slurm", "time=5") == 2
    assert "slurm_jobs.json: expected run names and job ids" in capsys.readouterr().err


def run_held(folder):  # noqa: F811
    out, base = folder / "out", folder / "base.yaml"
    names = ["general.exp_name=qi_seed2", "general.random_seed=2", "general.qi=true", "general.qi_weight=0.5"]
    names += ["tester.checkpoint=''", f"general.dataroot={folder / 'KITTI'}"]
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
    assert again.function.command == job.command and again.function.process is None
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
    while hold.exists() and trainer.progress.epoch == 1 and trainer.interruption.signum is None:
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
            wait_until(lambda: not command("squeue", "--noheader"))
        for name in ("slurmd.pid", "slurmctld.pid", "munge.pid"):
            with contextlib.suppress(FileNotFoundError):
                pid = int((folder / name).read_text())
                os.kill(pid, signal.SIGTERM)
                wait_until(lambda pid=pid: not is_running(pid))
        shutil.rmtree(folder)


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_jobs_that_are_queued_again_give_the_tables_of_an_undisturbed_comparison(
    cluster,
    folder,  # noqa: F811
    monkeypatch,
    capsys,
):
    """One is killed and queued again by hand; the other gets submitit's signal, as before the time limit of a job."""
    (folder / "train.py").write_text(TRAIN)
    monkeypatch.setattr(compare, "TRAIN_VAL", folder / "train.py")
    monkeypatch.setattr(slurm, "POLL_SECONDS", 1.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    settings = ("--set", "trainer.max_epoch=3", "--bootstrap", "50")
    assert call("--jobs", "1", *settings) == 0
    out = folder / "out"
    out.rename(folder / "undisturbed")
    out.mkdir()
    held = ("qi_seed1", "plain_seed1")
    for name in held:
        (out / f"hold_{name}").touch()
    ended: list[str] = []

    def disturb():
        wait_until(lambda: all((out / f"waiting_hold_{name}").exists() for name in held))
        killed, signalled = (json.loads((out / "logs/slurm_jobs.json").read_text())[name] for name in held)
        command("scancel", "--signal=KILL", killed)
        wait_until(lambda: killed not in command("squeue", "--noheader", "--array", "--format=%i").split())
        ended.append(command("squeue", "--noheader", "--states=all", f"--jobs={killed}", "--format=%T").strip())
        (out / "hold_qi_seed1").unlink()
        command("scontrol", "requeue", killed)
        command("scancel", "--signal=USR2", signalled)
        wait_until(lambda: "saved as" in (out / "logs/plain_seed1.log").read_text())
        (out / "hold_plain_seed1").unlink()

    thread = threading.Thread(target=disturb)
    thread.start()
    status = call("--slurm", "partition=test", "time=20", "cpus=1", *settings)
    thread.join(PATIENCE)
    said = capsys.readouterr()
    assert status == 0 and len(ended) == 1, said.err
    logs = [(out / f"logs/{name}.log").read_text() for name in held]
    assert all(log.count("--- 20") == 2 and "resuming from" in log for log in logs), logs
    assert tables(out) == tables(folder / "undisturbed")
    resumed = [line for log in logs for line in log.splitlines() if "saved as" in line or "resuming from" in line]
    print("killed job:", *ended, (out / "logs/compare.log").read_text(), *resumed, sep="\n")
