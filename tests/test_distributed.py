"""Two gloo processes against one: losses, gradients, whole runs, and what happens when one dies."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from lib.config import Config, parse_config
from lib.datasets.targets import empty_targets
from lib.engine.distributed import ProcessGroup, end_process, join, leave, record_error
from lib.engine.optimizer import build_optimizer
from lib.engine.step import add_gradients
from lib.losses import Criterion
from lib.models import build_model
from lib.ops.gaussian import draw_gaussian
from tests.conftest import PROJECT, descendants, is_running, wait_until
from tests.test_interruption import YAML, Run, assert_same_run, checkpoint, folder  # noqa: F401  (a fixture)
from tools import train_val

CONFIG = parse_config(
    {
        "general": {"qi": True, "obj_depth": True, "rad": 60.0},
        "losses": {"quasi_isometric": 2.0, "depth": 0.5},
        "model": {"backbone": "dla34_narrow", "pretrained": False},
        "dataset": {"resolution": [128, 64]},
    }
)
WIDTH, HEIGHT = 32, 16


def make_batch(objects_of_images, dtype):
    """Random images and targets with so many objects each."""
    rng = np.random.default_rng(5)
    images = []
    for count in objects_of_images:
        targets = empty_targets(WIDTH, HEIGHT, Config().dataset)
        for slot in rng.permutation(50)[:count]:
            x, y = int(rng.integers(WIDTH)), int(rng.integers(HEIGHT))
            draw_gaussian(targets["heatmap"][int(rng.integers(3))], (x, y), 2)
            targets["indices"][slot] = y * WIDTH + x
            for name in ("offset_2d", "size_2d", "offset_3d", "size_3d", "src_size_3d"):
                targets[name][slot] = rng.uniform(0.5, 3, targets[name].shape[1])
            targets["depth"][slot] = rng.uniform(3, 60)
            targets["heading_bin"][slot], targets["heading_res"][slot] = rng.integers(12), rng.uniform(-0.2, 0.2)
            targets["mask_2d"][slot] = True
            targets["mask_3d"][slot] = rng.random() < 0.8
        depth_map = np.where(rng.random((1, HEIGHT, WIDTH)) < 0.3, rng.uniform(3, 60), 0) if count else 0
        targets["obj_depth"] = np.zeros((1, HEIGHT, WIDTH)) + depth_map
        images.append(targets)
    stacked = {k: torch.from_numpy(np.stack([p[k] for p in images])) for k in images[0]}
    targets = {k: v.to(dtype) if v.is_floating_point() else v for k, v in stacked.items()}
    images = torch.from_numpy(rng.normal(size=(len(images), 3, 64, 128))).to(dtype)
    return images, targets


class GlobalBatchNorm2d(torch.nn.BatchNorm2d):
    """BatchNorm over the images of all ranks, on the CPU, where PyTorch has no SyncBatchNorm. Sums are in float64: in
    float32 their rounding depends on how a batch is shared, flips ReLUs and changes gradients by a percent."""

    def __init__(self, of, all_reduce_sum):
        super().__init__(of.num_features, of.eps, of.momentum)
        self.weight, self.bias = of.weight, of.bias  # some of them do not require gradients
        self.all_reduce_sum = all_reduce_sum

    def forward(self, x):
        axes = (0, 2, 3)
        count = torch.tensor([x.numel() // self.num_features], dtype=torch.float64)
        *sums, count = self.all_reduce_sum(torch.cat([x.sum(axes, dtype=torch.float64), count]))
        mean = (torch.stack(sums) / count.detach()).to(self.running_mean.dtype)
        centered = x - mean[:, None, None]
        squares = self.all_reduce_sum(centered.square().sum(axes, dtype=torch.float64))
        variance = (squares / count.detach()).to(self.running_mean.dtype)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)).to(variance.dtype), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centered * scale[:, None, None] + self.bias[:, None, None]


def convert_batch_norm(model, all_reduce_sum):
    for name, child in model.named_children():
        if isinstance(child, torch.nn.BatchNorm2d):
            setattr(model, name, GlobalBatchNorm2d(child, all_reduce_sum))
        else:
            convert_batch_norm(child, all_reduce_sum)


def loss_and_gradients(objects_of_images, dtype, ranks, sync_bn=True, parts=1, order=None):
    """Losses, gradients and BatchNorm buffers after a step, of this rank's share of the batch, in so many parts."""
    torch.manual_seed(0)
    model = build_model(CONFIG)
    with torch.no_grad():  # descriptors far enough apart for both bounds of the quasi-isometry to be violated
        model.neck.ida_2.node_2.conv.weight.mul_(3.0)
        for head in (model.depth, model.obj_depth, model.heading):
            head[2].weight.normal_(std=0.05)
    if sync_bn:
        convert_batch_norm(model, ranks.all_reduce_sum)
    model.to(dtype)
    optimizer = build_optimizer(model, CONFIG.optimizer)
    images, targets = make_batch(objects_of_images, dtype)
    if order:
        images, targets = images[order], {name: value[order] for name, value in targets.items()}
    own = torch.arange(len(images)).tensor_split(ranks.size)[ranks.rank]
    share = -(-len(images) // ranks.size)
    gather_rows = partial(ranks.gather_rows, share=share)
    criterion = Criterion(CONFIG.general, CONFIG.losses, ranks.all_reduce_sum, gather_rows)
    forward = ranks.wrap(model, sync_bn=False).train()

    synchronizing = []

    def compute_losses(images, targets):
        synchronizing.append(getattr(forward, "require_backward_grad_sync", None))
        return criterion(forward(images, targets["indices"]), targets)

    targets, local = {k: v[own] for k, v in targets.items()}, partial(ranks.keep_gradients_local, forward)
    terms = add_gradients(compute_losses, images[own], targets, parts, ranks.sum_integers, local)
    del terms["total"]
    assert ranks.size == 1 or synchronizing == [False] * (len(synchronizing) - 1) + [True]
    assert len(synchronizing) == min(parts, share)  # a part without images is left out
    gradients = {k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    optimizer.step()
    buffers = {k: v for k, v in model.named_buffers() if v.is_floating_point() and v.numel() > 3}
    return {k: v.detach() for k, v in terms.items()}, gradients, buffers


def work(rank, size, store, cases, path):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(store))
    torch.set_num_threads(1)
    ranks, _ = join([])
    assert ranks == ProcessGroup(rank, size)
    found = [loss_and_gradients(*case[:2], ranks, parts=case[2] if case[2:] else 1) for case in cases]
    assert ranks.gather_objects(rank) == (list(range(size)) if rank == 0 else [])
    torch.save(found, f"{path}.{rank}")
    leave()
    end_process(0)


def free_port():
    import socket

    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def assert_close(one, other, tolerance, what):
    scale = one.abs().max().item()
    error = (one - other).abs().max().item()
    assert error <= tolerance * max(scale, 1e-30), f"{what}: {error:.2e} of {scale:.2e}"


OBJECTS = {
    "even": [3, 5, 2, 4],
    "a rank without objects": [3, 5, 0, 0],
    "no objects at all": [0, 0, 0, 0],
    "uneven shares": [3, 0, 6],
    "a rank without images": [4],
}


def test_two_processes_are_one(tmp_path):
    """Every term and every gradient: 1e-9 in float64, 1e-5 in float32."""
    cases = [(objects, dtype) for objects in OBJECTS.values() for dtype in (torch.float64, torch.float32)]
    mp.spawn(work, (2, free_port(), cases, str(tmp_path / "found")), nprocs=2)
    shares = [torch.load(f"{tmp_path / 'found'}.{rank}") for rank in range(2)]
    for k, (objects, dtype) in enumerate(cases):
        what = f"{objects} {dtype}"
        tolerance = 1e-9 if dtype == torch.float64 else 1e-5
        terms, gradients, buffers = loss_and_gradients(objects, dtype, ProcessGroup())
        assert len(terms) == 9
        if objects == OBJECTS["even"]:
            assert all(value > 0 for value in terms.values()), terms
        elif not sum(objects):
            assert all(value == 0 for name, value in terms.items() if name != "heatmap")
        for rank in range(2):
            other_terms, other_gradients, other_buffers = shares[rank][k]
            for name, value in terms.items():
                assert_close(value, other_terms[name], tolerance, f"{what} {name}")
            assert other_gradients.keys() == gradients.keys()
            if objects == OBJECTS["uneven shares"] and dtype == torch.float32:
                continue  # a share of one image is convolved by another algorithm, whose rounding flips ReLUs
            for name, value in gradients.items():
                assert_close(value, other_gradients[name], tolerance, f"{what} gradient of {name}")
            for name, value in buffers.items():
                assert_close(value, other_buffers[name], tolerance, f"{what} {name}")


def test_parts_of_two_processes_are_parts_of_one(tmp_path):
    """Ranks [a, b, c] and [d, e] in two parts see {a, b, d} and {c, e}, as one process with that order of images."""
    objects, dtype = [3, 5, 2, 4, 1], torch.float64
    mp.spawn(work, (2, free_port(), [(objects, dtype, 2)], str(tmp_path / "found")), nprocs=2)
    order = [0, 1, 3, 2, 4]
    terms, gradients, buffers = loss_and_gradients(objects, dtype, ProcessGroup(), parts=2, order=order)
    for rank in range(2):
        others = torch.load(f"{tmp_path / 'found'}.{rank}")[0]
        for own, other in zip((terms, gradients, buffers), others, strict=True):
            assert own.keys() == other.keys()
            for name, value in own.items():
                assert_close(value, other[name], 1e-7, name)


def test_a_process_that_meets_nobody_says_so(monkeypatch):
    """Another one found an error first, and has ended."""
    for name, value in {"RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))

    def init_process_group(*arguments, **options):
        raise RuntimeError("Gloo connectFullMesh failed with: Connection refused\nGLHF!")

    monkeypatch.setattr("lib.engine.distributed._end_with_parent", lambda: None)
    monkeypatch.delenv("LOCAL_RANK", raising=False)  # as in a PyTorchJob of Kubernetes: one rank a machine
    monkeypatch.setattr(torch.distributed, "init_process_group", init_process_group)
    with pytest.raises(ConnectionError, match="rank 1 of 2 could not join the process group"):
        join([])


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "abc", "WORLD_SIZE": "2"}, r"must be numbers, got RANK=abc, WORLD_SIZE=2, LOCAL_RANK=\(not set\)"),
        ({"RANK": "1"}, r"must be numbers, got RANK=1, WORLD_SIZE=\(not set\)"),
        ({"WORLD_SIZE": "2"}, r"must be numbers, got RANK=\(not set\), WORLD_SIZE=2"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "contradict each other: RANK=2, WORLD_SIZE=2"),
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "2"}, "LOCAL_RANK=3"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE=2 needs MASTER_ADDR, and a number as MASTER_PORT"),
    ],
)
def test_variables_that_no_launcher_sets_are_refused(variables, said, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("lib.engine.distributed._end_with_parent", lambda: None)
    with pytest.raises(ValueError, match=said):
        join([])


def test_a_rank_that_is_no_number_is_one_line(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text("model: {backbone: dla34_narrow}\n")
    command = [sys.executable, str(PROJECT / "tools/train_val.py"), "--config", str(path)]
    environment = os.environ | {"RANK": "abc"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "must be numbers, got RANK=abc" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def test_a_rank_that_waits_for_another_one_says_so_and_ends_with_a_signal(folder):  # noqa: F811
    """Python's signal handlers do not run while torch waits."""
    launcher = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    command = ("env", *(f"{name}={value}" for name, value in launcher.items()), sys.executable)
    run = Run(folder, "alone", prefix=command)
    run.wait_until(lambda: "rank 0 of 2 waits for the others at localhost:" in run.said(), "message")
    run.process.terminate()
    assert run.wait() in (-signal.SIGTERM, 128 + signal.SIGTERM)


@pytest.mark.parametrize(("variables", "finalised"), [({"RANK": "0", "WORLD_SIZE": "1"}, False), ({}, True)])
def test_a_rank_ends_without_python_finalising(variables, finalised):
    """Else a thread of Gloo may abort it. Exit handlers run, and what was written arrives."""
    code = (
        "import atexit\nfrom lib.engine.distributed import end_process\n"
        "class Last:\n    def __del__(self):\n        print('finalised', flush=True)\n"
        "last = Last()\natexit.register(print, 'handler')\nprint('written')\nend_process(7)"
    )
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")} | variables
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 7
    assert done.stdout.split() == ["written", "handler", *(["finalised"] if finalised else [])]


def test_sync_bn_on_the_cpu_is_refused():
    with pytest.raises(ValueError, match=r"trainer\.sync_bn needs GPUs"):
        ProcessGroup(0, 2).wrap(torch.nn.BatchNorm2d(3), sync_bn=True)


def test_float32_gradients_need_the_statistics_in_float64():
    """That the bound of 1e-5 says something: with BatchNorm's own float32 statistics, gradients differ by more."""
    objects = OBJECTS["even"]
    _, with_double, _ = loss_and_gradients(objects, torch.float32, ProcessGroup())
    _, with_single, _ = loss_and_gradients(objects, torch.float32, ProcessGroup(), sync_bn=False)
    worst = max(((a - with_single[k]).abs().max() / a.abs().max()).item() for k, a in with_double.items())
    assert worst > 1e-4


@pytest.mark.parametrize("frames", [pytest.param(12, marks=pytest.mark.slow), 11])
def test_torchrun_trains_evaluates_and_resumes(folder, frames):  # noqa: F811
    """Both processes' detections are merged; a killed run resumes to the run that was not interrupted.

    With 11 frames the last batch has one image, and so the second process none.
    """
    (folder / "KITTI/ImageSets/train.txt").write_text("".join(f"{k:06d}\n" for k in range(frames)))
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    average = ("trainer.ema=0.5",) if frames == 11 else ()  # whose BatchNorm statistics are those of the first process
    whole = Run(folder, "whole", *average, prefix=torchrun)
    assert whole.wait() == 0, whole.said()
    assert whole.said().count("epoch 3/3  lr") == 1 and whole.said().count("ap.json") == 2
    assert "warning" not in whole.said().lower()
    single = Run(folder, "whole", "-e", "tester.checkpoint=checkpoint_epoch_3.pth")
    merged = results(whole.run_dir)
    assert len(merged) == 8  # four frames after each of two epochs
    assert single.wait() == 0, single.said()
    assert results(whole.run_dir) == merged
    if frames == 11:
        return
    run = Run(folder, "parts", prefix=torchrun, wait_in=0)
    run.wait_until((run.run_dir / "checkpoints/checkpoint_last.pth").is_file, "checkpoint")
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() != 0
    assert "continue with the same command and --resume" in run.said(), run.said()
    run = Run(folder, "parts", "--resume", prefix=torchrun)
    assert run.wait() == 0, run.said()
    assert_same_run(whole.run_dir, run.run_dir)


@pytest.mark.slow
def test_two_machines_of_which_one_dies(folder):  # noqa: F811
    """Two launchers that meet on the loopback; kill -9 of one with its rank ends the other; one machine continues."""
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1", "--rdzv-id=tiny")
    torchrun += ("--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{free_port()}")
    nodes = [Run(folder, "nodes", prefix=torchrun, wait_in=0) for _ in range(2)]
    nodes[0].wait_until((nodes[0].run_dir / "checkpoints/checkpoint_last.pth").is_file, "checkpoint")
    ranks = [descendants(node.process.pid) for node in nodes]
    assert [len(pids) for pids in ranks] == [1, 1]
    for pid in (nodes[1].process.pid, *ranks[1]):
        os.kill(pid, signal.SIGKILL)
    assert nodes[0].wait() != 0 and nodes[1].wait() == -signal.SIGKILL
    assert "epoch 3/3" not in nodes[0].said()
    alone = Run(folder, "nodes", "--resume")
    assert alone.wait() == 0, alone.said()
    assert "resuming from" in alone.said() and checkpoint(alone.run_dir)["epoch"] == 3
    again = Run(
        folder, "nodes", "--resume", "trainer.max_epoch=4", prefix=(*torchrun[:3], "--standalone", "--nproc_per_node=2")
    )
    assert again.wait() == 0 and checkpoint(again.run_dir)["epoch"] == 4, again.said()


def results(run_dir):
    return {str(p.relative_to(run_dir)): p.read_text() for p in (run_dir / "results").rglob("*.txt")}


@pytest.mark.slow
def test_a_killed_process_ends_the_run(folder):  # noqa: F811
    """gpu_ids with two ids starts two processes; kill -9 of one ends both, and --resume continues."""
    both = "trainer.gpu_ids=[0,1]"
    whole = Run(folder, "whole", both)
    assert whole.wait() == 0, whole.said()
    assert whole.said().count("epoch 3/3  lr") == 1
    run = Run(folder, "parts", both, wait_in=0)
    run.wait_until((run.run_dir / "checkpoints/checkpoint_last.pth").is_file, "checkpoint")
    processes = descendants(run.process.pid)
    assert len(processes) == 2
    os.kill(processes[1], signal.SIGKILL)
    status = run.wait()  # ends before torchrun would kill the other one
    said = run.said()
    assert status == 128 + signal.SIGKILL, said
    assert "was killed by SIGKILL; the others were ended. Continue with --resume" in said.splitlines()[-1], said
    assert "Traceback" not in said
    run = Run(folder, "parts", both, "--resume")
    assert run.wait() == 0, run.said()
    assert_same_run(whole.run_dir, run.run_dir)
    assert checkpoint(run.run_dir)["epoch"] == 3


@pytest.mark.slow
def test_ranks_end_with_their_launcher(folder):  # noqa: F811
    run = Run(folder, "orphans", "trainer.gpu_ids=[0,1]", wait_in=0)
    run.wait_until((run.run_dir / "checkpoints/checkpoint_last.pth").is_file, "checkpoint")
    ranks = descendants(run.process.pid)
    assert len(ranks) == 2
    run.process.kill()
    run.wait()
    wait_until(lambda: not any(map(is_running, ranks)), said=run.said)
    assert "and --resume" in run.said()


def test_the_error_of_one_process_ends_all(folder):  # noqa: F811
    """A frame that breaks while they train stops both, and the message names it."""
    path = folder / "KITTI/training/image_2/000005.png"
    content = path.read_bytes()
    path.write_bytes(content[:100] + content[-12:])
    run = Run(folder, "bad", "trainer.gpu_ids=[0,1]")
    assert run.wait() == 2, run.said()
    assert "000005.png: this image cannot be decoded" in run.said()
    assert "ended with status 2; the others were ended" in run.said().splitlines()[-1]


def test_a_rank_reports_its_error_in_a_whole_file(tmp_path, monkeypatch):
    """torchrun ends the other ranks at any time, and reads the files of all."""
    path, real = tmp_path / "error.json", os.replace
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))

    def replace(source, target):
        assert not path.exists() and json.loads(Path(source).read_text())
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    record_error(ValueError("a bad frame"))
    assert "a bad frame" in path.read_text() and [file.name for file in tmp_path.iterdir()] == ["error.json"]
    assert os.environ["TORCHELASTIC_ERROR_FILE"] == str(path)


@pytest.mark.parametrize("what", ["data", "label", "weights", "checkpoint"])
def test_what_is_missing_is_said_once_before_ranks_start(what, tiny_kitti, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_val, "launch", lambda *_: pytest.fail("ranks were started"))
    (tmp_path / "x.yaml").write_text(YAML)
    settings = {
        "data": ["dataset.train_split=nowhere"],
        "label": [],
        "weights": ["trainer.pretrain_model=gone.pth"],
        "checkpoint": ["tester.checkpoint=gone.pth"],
    }[what]
    evaluate = ["-e"] if what == "checkpoint" else []
    if what == "label":
        (tiny_kitti / "training/label_2/000003.txt").unlink()
    overrides = [f"general.dataroot={tiny_kitti}", "trainer.gpu_ids=[0,1]", "general.obj_depth=false", *settings]
    assert train_val.main(["--config", "x.yaml", *evaluate, "--set", *overrides]) == 2
    said = capfd.readouterr()
    assert said.err.count("error:") == 1 and {"data": "nowhere", "label": "000003"}.get(what, "gone.pth") in said.err
    assert not (tmp_path / "outputs").exists()
