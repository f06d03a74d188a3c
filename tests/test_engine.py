import json
import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import lib
from lib.config import Config, General, LrScheduler, Model, Optimizer, parse_config
from lib.engine.checkpoint import load_model_state, load_optimizer_state, read_checkpoint, save_checkpoint
from lib.engine.inference import write_results
from lib.engine.metrics import MetricsLog, read_metrics
from lib.engine.optimizer import build_optimizer, learning_rate
from lib.engine.progress import Progress
from lib.engine.trainer import Trainer
from lib.losses import Criterion
from lib.models import build_model
from lib.structures import FrameInfo
from lib.system.commands import run_command
from lib.system.environment import git_commit, versions
from lib.system.files import atomic_write, remove_leftovers
from tests.conftest import DATA, PROJECT
from tools.bench.network import make_random_targets

SCHEDULE = json.loads((DATA / "schedule.json").read_text())
NARROW = parse_config({"model": {"backbone": "dla34_narrow"}})
WITH_HEAD = parse_config({"model": {"backbone": "dla34_narrow"}, "general": {"obj_depth": True}})


def test_learning_rates_are_the_official_ones():
    rates = [learning_rate(epoch, 0.00125, LrScheduler(), 140) for epoch in range(140)]
    assert rates == pytest.approx(SCHEDULE["lr_per_epoch"], rel=1e-9)
    assert [e for e in range(1, 140) if rates[e] < rates[e - 1]] == [95, 125]


def test_learning_rate_without_warmup():
    config = LrScheduler(warmup=False, decay_list=(2,))
    assert [learning_rate(e, 1.0, config, 4) for e in range(4)] == pytest.approx([1, 1, 0.1, 0.1])


def test_biases_are_not_decayed():
    model = build_model(parse_config({"general": {"obj_depth": True}}))
    biases, weights = build_optimizer(model, Optimizer()).param_groups
    assert len(biases["params"]) == SCHEDULE["parameters_without_decay"]
    assert len(weights["params"]) == SCHEDULE["parameters_with_decay"]
    assert biases["weight_decay"] == 0 and weights["weight_decay"] == 1e-5


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_checkpoints_round_trip(tmp_path, kind):
    torch.manual_seed(0)
    model = build_model(NARROW)
    optimizer = build_optimizer(model, Optimizer(type=kind))
    step(model, optimizer)
    path = tmp_path / "checkpoints" / "a.pth"
    save_checkpoint(path, model, optimizer, 7, {"general": {"K": 1.5}}, 12.5)
    state = read_checkpoint(path)
    assert {"epoch", "model_state", "optimizer_state", "config", "best", "version", "random_state"} <= set(state)
    assert (state["epoch"], state["best"], state["config"]) == (7, 12.5, {"general": {"K": 1.5}})
    other = build_model(NARROW)
    other_optimizer = build_optimizer(other, Optimizer(type=kind))
    load_model_state(other, state["model_state"], path)
    load_optimizer_state(other_optimizer, state["optimizer_state"], path)
    for m, o in ((model, optimizer), (other, other_optimizer)):
        step(m, o)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert list(path.parent.iterdir()) == [path]


def step(model, optimizer):
    images = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    outputs = model.train()(images, torch.zeros(1, 50, dtype=torch.int64))
    optimizer.zero_grad()
    (outputs["heatmap"].square().mean() + outputs["depth"].square().mean()).backward()
    optimizer.step()


def test_obj_depth_head_may_be_absent_on_either_side(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "x.pth"
    with_head, without = build_model(WITH_HEAD), build_model(NARROW)
    prefixed = {f"module.{k}": v for k, v in with_head.state_dict().items()}  # as saved by DataParallel
    load_model_state(without, prefixed, path)
    assert torch.equal(without.heatmap[0].weight, with_head.heatmap[0].weight)
    assert "its obj_depth head is left out" in caplog.text
    initial = with_head.obj_depth[0].weight.clone()
    load_model_state(with_head, build_model(NARROW).state_dict(), path)
    assert torch.equal(with_head.obj_depth[0].weight, initial)
    assert "keeps its initial weights" in caplog.text


def test_checkpoints_of_another_model_are_named(tmp_path):
    wide = build_model(parse_config({}))
    with pytest.raises(ValueError, match=r"w\.pth: a checkpoint of another model: it .*model\.backbone"):
        load_model_state(build_model(NARROW), wide.state_dict(), tmp_path / "w.pth")
    state = build_model(NARROW).state_dict()
    del state["heatmap.0.weight"]
    with pytest.raises(ValueError, match=r"lacks heatmap\.0\.weight"):
        load_model_state(build_model(NARROW), state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: its optimizer state does not fit"):
        load_optimizer_state(build_optimizer(wide, Optimizer()), {"state": {}, "param_groups": []}, tmp_path / "w.pth")
    model = build_model(NARROW)
    trained, other = (build_optimizer(model, Optimizer(type=kind)) for kind in ("adam", "sgd"))
    step(model, trained)
    with pytest.raises(ValueError, match=r"w\.pth: its optimizer state does not fit.*SGD needs momentum_buffer"):
        load_optimizer_state(other, trained.state_dict(), tmp_path / "w.pth")
    slack = build_optimizer(model, Optimizer(weight_decay=0.5))
    load_optimizer_state(slack, trained.state_dict(), tmp_path / "w.pth")
    assert slack.param_groups[1]["weight_decay"] == 0.5  # the config's, not the checkpoint's
    with pytest.raises(ValueError, match="it has none \\(a released checkpoint"):
        load_optimizer_state(build_optimizer(wide, Optimizer()), None, tmp_path / "w.pth")


class Payload:
    def __reduce__(self):
        return (print, ("code ran",))


def test_unusable_checkpoints_are_named(tmp_path, capsys):
    path = tmp_path / "c.pth"
    with pytest.raises(FileNotFoundError, match=r"c\.pth: no such checkpoint"):
        read_checkpoint(path)
    torch.save({"model_state": {}, "x": Payload()}, path)
    with pytest.raises(ValueError, match=r"c\.pth: not a readable checkpoint"):
        read_checkpoint(path)
    assert "code ran" not in capsys.readouterr().out
    torch.save({"state_dict": {}}, path)
    with pytest.raises(ValueError, match="no 'model_state'"):
        read_checkpoint(path)
    good = tmp_path / "good.pth"
    torch.save({"model_state": {"a": torch.zeros(1000)}}, good)
    path.write_bytes(good.read_bytes()[:700])
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        read_checkpoint(path)


def test_a_rotten_tensor_is_found(tmp_path):
    """torch itself does not look at the check sums of its archive."""
    path = tmp_path / "c.pth"
    values = torch.arange(1000.0)
    torch.save({"model_state": {"a": values}}, path)
    content = path.read_bytes()
    place = content.index(values.numpy().tobytes())
    path.write_bytes(content[: place + 100] + b"\0" * 400 + content[place + 500 :])
    assert not torch.equal(torch.load(path, weights_only=True)["model_state"]["a"], values)
    with pytest.raises(ValueError, match=r"c\.pth: not a readable checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damage_of_any_kind_is_named(tmp_path, zipped):
    """What is cut off, changed or empty is an error or, where the damage meets nothing that counts, a checkpoint."""
    path, good = tmp_path / "c.pth", tmp_path / "good.pth"
    torch.save({"epoch": 1, "model_state": {"a": torch.zeros(20)}}, good, _use_new_zipfile_serialization=zipped)
    content, rng = good.read_bytes(), np.random.default_rng(0)
    damaged = [content[:n] for n in rng.integers(0, len(content), 60)] + [b"", b"\x80\x02."]
    for place, value in zip(rng.integers(0, len(content), 300), rng.integers(0, 256, 300), strict=True):
        damaged.append(content[:place] + bytes([value]) + content[place + 1 :])
    refused = 0
    for content in damaged:
        path.write_bytes(content)
        for metadata_only in (True, False):
            try:
                read_checkpoint(path, metadata_only)
            except ValueError as error:
                assert "c.pth: not a" in str(error)
                refused += 1
    assert refused > 150


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "deep" / "file.bin"
    with atomic_write(path) as file:
        file.write(b"old")
    with pytest.raises(OSError, match="disk full"), atomic_write(path) as file:
        file.write(b"half")
        raise OSError("disk full")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_two_processes_write_results_of_one_name(tmp_path):
    """-e beside a training: each folder is whole, the later one stays."""
    folder = tmp_path / "val" / "data"

    def results(names):
        for name in names:
            if name == "000002":
                write_results(folder, iter([("000009", [])]))
            yield name, []

    write_results(folder, results(["000001", "000002", "000003"]))
    assert sorted(p.name for p in folder.iterdir()) == ["000001.txt", "000002.txt", "000003.txt"]
    assert [p.name for p in folder.parent.iterdir()] == ["data"]
    assert folder.stat().st_mode == folder.parent.stat().st_mode

    def breaks_off():
        yield "000004", []
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_results(folder, breaks_off())
    assert [p.name for p in folder.parent.iterdir()] == ["data"] and len(list(folder.iterdir())) == 3


def test_leftovers_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "a" / ".data.x1.tmp").mkdir(parents=True)
    (tmp_path / "a" / ".data.x1.tmp" / "000000.txt").touch()
    (tmp_path / "a" / ".last.pth.0f.tmp").touch()
    (tmp_path / "a" / "kept.tmp").touch()
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "kept.tmp"]


def test_metrics_are_cut_back_to_the_resumed_epoch(tmp_path):
    record = {"lr": 0.1, "losses": {"depth": 1.0}, "samples_per_second": 2.0}
    with MetricsLog(tmp_path, 0) as metrics:
        for epoch in (1, 2, 3):
            metrics.write({"epoch": epoch, **record, "ap": {"Car 3D moderate AP40": float("nan")}})
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "l')  # cut off by a crash
    with MetricsLog(tmp_path, 2) as metrics:
        metrics.write({"epoch": 3, **record, "ap": {"Car 3D moderate AP40": 1.0}})
    assert [r["epoch"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert "ap" in read_metrics(tmp_path / "metrics.jsonl")[2]


def test_steps_without_a_term_are_counted():
    progress = Progress()
    for value, images in ((0.0, 2), (0.25, 2), (0.0, 1), (0.0, 0)):  # the last one: a batch that could not be read
        progress.add({"quasi_isometric": value, "heatmap": 1.0, "offset_3d": 0.5}, images)
    resumed = Progress.from_checkpoint({"epoch": 0, "progress": progress.state()}, Path("x"), (0, 0))
    resumed.add({"quasi_isometric": 0.0, "heatmap": 1.0, "offset_3d": 0.0}, 2)
    resumed.finish_epoch(0.1)
    assert resumed.record["zero_share"] == {"offset_3d": 0.25, "quasi_isometric": 0.75}
    resumed.add({"quasi_isometric": 0.5}, 2)
    resumed.finish_epoch(0.1)
    assert "zero_share" not in resumed.record


def test_progress_of_version_0_1_is_read():
    old = {"frames_done": 4, "pictures": 3, "order": [3, 12], "sums": {"depth": 6.0}}
    progress = Progress.from_checkpoint({"epoch": 2, "best": 1.5, "progress": old}, Path("x"), (3, 12))
    assert (progress.epoch, progress.frames_done, progress.images, progress.means()) == (2, 4, 3, {"depth": 2.0})
    with pytest.raises(ValueError, match="not one that this version knows"):
        Progress.from_checkpoint({"epoch": 2, "progress": {"photos": 3}}, Path("x"), (3, 12))


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad"), 2),
        (FileNotFoundError("gone"), 2),
        (FloatingPointError("nan"), 1),
        (ConnectionError("lost"), 1),
    ],
)
def test_errors_become_one_line_and_a_status(error, status, capsys):
    def fail():
        raise error

    assert run_command(fail) == status
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_what_the_system_says_begins_with_the_file(tmp_path, capsys):
    assert run_command(lambda: len((tmp_path / "gone.txt").read_text())) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'gone.txt'}: No such file or directory\n"


def test_errors_of_loader_workers_become_one_line(capsys):
    text = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback\n  File x\nValueError: a.png: bad\n"

    def fail():
        raise ValueError(text)

    assert run_command(fail) == 2
    assert capsys.readouterr().err == "error: a.png: bad\n"


def test_an_unexpected_error_is_not_hidden():
    with pytest.raises(KeyError):
        run_command(lambda: {}["a bug"])


@pytest.mark.slow
def test_a_compiled_step_is_the_step():
    """In float64, loss terms and all weights after a step."""
    general, optimizer = General(qi=True, obj_depth=True), Optimizer(type="sgd", lr=0.01)
    config = Config(general=general, model=Model(backbone="dla34_narrow"), optimizer=optimizer)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, 64, 96), dtype=np.uint8))
    targets = make_random_targets(rng, 2, 24, 16)
    frames = [FrameInfo(f"{k:06d}", (96, 64), None) for k in range(2)]
    found = []
    for compile_it in (False, True):
        torch.manual_seed(0)
        model = build_model(config).double()
        config = replace(config, trainer=replace(config.trainer, compile=compile_it))
        loss, steps = Criterion(config.general), build_optimizer(model, config.optimizer)
        loader = torch.utils.data.DataLoader(range(2))
        trainer = Trainer(model, loss, steps, loader, config, Path(), torch.device("cpu"), lambda *_: {})
        model.train()
        terms, count, stop = trainer.step(images, targets, frames).read()
        assert count == 2 and not stop and len(terms) == 10
        found.append((terms, model.state_dict()))
    (terms, weights), (others, other_weights) = found
    assert others == pytest.approx(terms, rel=1e-9)
    for name, value in weights.items():
        assert torch.allclose(value, other_weights[name], rtol=1e-8, atol=1e-11), name


@pytest.mark.slow
def test_a_machine_that_cannot_compile_is_named(tmp_path):
    code = """
import torch
from lib.engine.step import CompiledForward
class Model(torch.nn.Module):
    def forward(self, images, indices):
        return images * 2
try:
    CompiledForward(Model())(torch.ones(2), None)
except ValueError as error:
    print(error)
"""
    environment = os.environ | {"CXX": "no-such-compiler", "PATH": "", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert "trainer.compile: " in done.stdout and "No working C++ compiler" in done.stdout, done.stderr
    assert "set trainer.compile to false" in done.stdout


def test_versions_are_those_that_run(tmp_path):
    found = versions()
    assert found["torch"] == torch.__version__ and found["code"].startswith(lib.__version__)
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x", *command], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = head.stdout.strip()
    assert git_commit(tmp_path) == expected
    subprocess.run(["git", "pack-refs", "--all"], cwd=tmp_path, check=True)
    assert git_commit(tmp_path) == expected
    subprocess.run(["git", "checkout", "-q", "--detach"], cwd=tmp_path, check=True)
    assert git_commit(tmp_path) == expected
    assert git_commit(tmp_path / "elsewhere") is None
