"""That both sides of the benches do the same work, and that the scripts run."""

from __future__ import annotations

import json
import time
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import make_obj_depth
from lib.config import Config, Dataset, General, parse_config
from lib.datasets.kitti import KITTI
from lib.datasets.samples import TrainingSamples
from lib.models import build_model
from lib.models.centernet3d import IMAGE_MEAN, IMAGE_STD, OBJECT_HEADS
from tools.bench import gpu, gpu_loop, network, object_depth, samples
from tools.bench.gpu_job import Job, attempt
from tools.bench.gpu_trace import analyse, covered
from tools.bench.gpu_training import flops_of
from tools.bench.plain import DenseHeads, plain_sample
from tools.bench.report import Report, make_row
from tools.bench.side import Side


def test_plain_samples_are_the_same_samples(tiny_kitti):
    assert make_obj_depth.main(["--dataroot", str(tiny_kitti)]) == 0
    config = Config(general=General(obj_depth=True), dataset=Dataset(writelist=("Car", "Pedestrian")))
    frames = KITTI(tiny_kitti, "train", "obj_depth_all")
    ours = TrainingSamples(frames, config)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    for epoch in range(3):
        for k, frame_id in enumerate(frames.frame_ids):
            seed = (config.general.random_seed, epoch, zlib.crc32(frame_id.encode()))
            image, targets = plain_sample(frames, k, np.random.default_rng(seed), config)
            sample = ours[(epoch, k)]
            assert targets.keys() == sample.targets.keys()
            for name, value in targets.items():
                assert torch.allclose(sample.targets[name].double(), value.double(), rtol=1e-6), name
            levels = ((image * std + mean) * 255 - sample.image).abs()
            assert levels.mean() < 1 and levels.quantile(0.99) < 4  # white noise, warped by two libraries


def test_plain_network_is_the_same_network():
    config = parse_config({"model": {"backbone": "dla34_narrow"}, "general": {"obj_depth": True}})
    torch.manual_seed(0)
    plain = DenseHeads(config).eval()
    model = build_model(config).eval()
    model.load_state_dict(plain.model.state_dict())
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        for indices in (None, torch.randint(0, 24 * 16, (2, 50))):
            ours, theirs = model(images, indices), plain(images, indices)
            assert ours.keys() <= theirs.keys()
            for name, value in ours.items():
                assert torch.allclose(value.double(), theirs[name].double(), atol=1e-5), name


def test_reports_tell_missed_bars(tmp_path, capsys):
    report = Report("x")
    report.add_sides({"plain": [3.0, 1.0, 2.0], "fast": [0.5, 0.4, 9.0]}, "ms/y", 10, {"fast": 3.9})
    assert report.show(tmp_path / "a.json") == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(r["name"], r["value"], r["ratio"]) for r in rows] == [("plain", 200.0, 1.0), ("fast", 50.0, 4.0)]
    assert "MISSED" not in capsys.readouterr().out
    report.add("slow", 1, "s", ratio=1.5, bar=2)
    assert report.show(None) == 1 and "bar 2 x  MISSED" in capsys.readouterr().out


def test_object_depth_bench(tmp_path, capsys):
    assert object_depth.main(["--frames", "6", "--repeats", "1", "--json", str(tmp_path / "a.json")]) == 0
    rows = {r["name"]: r["value"] for r in json.loads((tmp_path / "a.json").read_text())["rows"]}
    assert rows["make_obj_depth.py --format npy: a map"] == pytest.approx(1863.128)
    assert 0.2 < rows["make_obj_depth.py --format npz: the largest map"] < 20


@pytest.mark.slow
def test_sample_and_network_benches_run(tmp_path):
    samples.main(["--frames", "3", "--repeats", "1", "--json", str(tmp_path / "s.json")])
    size = ["--backbone", "dla34_narrow", "--resolution", "96", "64", "--repeats", "1"]
    network.main([*size, "--json", str(tmp_path / "n.json")])
    names = {r["name"] for f in "sn" for r in json.loads((tmp_path / f"{f}.json").read_text())["rows"]}
    assert {"cache: ram, depth maps painted", "training", "inference", "decoding of 50 detections"} <= names


def gpu_job(tmp_path=Path(), seconds=1000.0, quick=False):
    return Job("cuda", quick, tmp_path, time.time() + seconds)


def test_gpu_rows_are_compared_by_name(tmp_path):
    def step(variant, batch, rate, ours=True):
        facts = {"kind": "training", "ours": ours, "variant": variant, "batch": batch, "better": "more"}
        plain = f"training, plain float32, batch {batch}"
        return make_row(f"training, {variant}, batch {batch}", rate, against=plain, **facts)

    memory = make_row("peak memory, x", 50.0, bar=1.0, against="peak memory, plain", better="less")
    rows = [
        make_row("bf16 matrix product", 800.0, kind="product"),
        step("plain float32", 16, 40.0, ours=False),
        step("amp bf16", 16, 180.0),
        step("amp bf16, cudnn.benchmark", 16, 999.0, ours=False),
        step("amp bf16", 64, None),
        step("amp bf16 + compile", 64, 1000.0),
        make_row("FLOPs of a training image", 400.0, kind="flops"),
        make_row("peak memory, plain", 60.0),
        memory,
    ]
    ratios = {row["name"]: row["ratio"] for row in gpu.compare(rows)}
    assert ratios["training, amp bf16, batch 16"] == 4.5
    assert ratios["training, amp bf16, batch 64"] is None  # not measured
    assert ratios["training, amp bf16 + compile, batch 64"] is None  # plain does not fit
    assert ratios["peak memory, x"] == pytest.approx(1.2)
    assert memory["ratio"] is None  # the rows that came are as they were
    best, utilisation = gpu.headlines(rows, gpu_job())
    assert (best["ratio"], best["bar"]) == (4.5, 5.0)
    assert utilisation["value"] == 400.0 and (utilisation["ratio"], utilisation["bar"]) == (0.5, 0.4)
    assert {row["bar"] for row in gpu.headlines(rows, gpu_job(quick=True))} <= {None}
    report = Report("x", [*gpu.compare(rows), best, utilisation])
    assert report.show(tmp_path / "a.json") == 1  # 4.5 times is less than 5 times


def test_traces_tell_who_waits():
    def event(cat, name, start, duration, correlation):
        return {"ph": "X", "cat": cat, "name": name, "ts": start, "dur": duration, "args": {"correlation": correlation}}

    events = [
        {"ph": "M", "name": "process_name"},
        event("kernel", "earlier", -10, 15, 1),  # launched before the profiler began: 0 to 5 are in the window
        event("cuda_runtime", "cudaLaunchKernel", 0, 2, 2),
        event("kernel", "gemm", 10, 30, 2),
        event("cuda_driver", "cuLaunchKernelEx", 4, 2, 3),
        event("kernel", "gemm", 30, 20, 3),  # on another stream: 10 to 50 are busy
        event("cuda_runtime", "cudaMemcpyAsync", 6, 2, 4),
        event("gpu_memcpy", "Memcpy DtoH", 60, 10, 4),
        event("cuda_runtime", "cudaEventSynchronize", 45, 30, 5),  # idle meanwhile: 50 to 60 and 70 to 75
        event("cuda_runtime", "cudaLaunchKernel", 90, 10, 6),
        event("kernel", "relu", 101, 5, 6),  # after the window, but of these steps
        event("cpu_op", "aten::mm", 0, 100, 7),
    ]
    waiting = analyse(events, steps=2)
    assert waiting.idle == pytest.approx(1 - (5 + 40 + 10) / 100)
    assert waiting.waits["cudaEventSynchronize"] == pytest.approx(0.30)
    assert waiting.waits["cudaMemcpyAsync"] == pytest.approx(0.02)
    assert waiting.waits["cudaStreamSynchronize and the like"] == 0
    assert waiting.waits_while_idle == pytest.approx((15 + 2) / 100)
    assert waiting.busy_per_step == pytest.approx((40 + 10 + 5) / 2)
    assert waiting.launches_per_step == 1.5
    dearest = waiting.kernels[0]
    assert (dearest["name"], dearest["calls"], dearest["microseconds"]) == ("gemm", 1.0, 25.0)
    assert dearest["share"] == pytest.approx(50 / 65)
    assert covered([(5, 6), (0, 2), (1, 3), (1, 2)]) == 4
    with pytest.raises(ValueError, match="0 launches"):
        analyse(events[:2], steps=2)


def test_profiler_sees_whole_steps(tmp_path, monkeypatch):
    """It is the loader that tells it where steps begin."""

    class Run(gpu_loop.Run):
        def epoch(self):
            for _ in self.loader:
                torch.ones(3).exp_()
            return 1.0

    loader = gpu_loop.Watched(range(12))
    run = Run(SimpleNamespace(run_dir=tmp_path), None, None, loader)
    monkeypatch.setattr(gpu_loop, "analyse", lambda events, steps: events)
    events = gpu_loop._traced(run, 5, [torch.profiler.ProfilerActivity.CPU])
    assert sum(event["name"] == "aten::exp_" for event in events) == 5
    assert len(loader.waits) == 12
    assert gpu_loop.share(gpu_job(), "x", 0.1)["ratio"] == 0.5 and gpu_loop.share(gpu_job(), "x", 0.0)["ratio"] > 1


def test_flops_of_convolutions_are_counted_by_hand():
    x = torch.randn(2, 8, 10, 12, requires_grad=True)
    conv, grouped = torch.nn.Conv2d(8, 6, 3, padding=1), torch.nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4)
    up = torch.nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8)
    multiplications = {conv: 8 * 6 * 9 * 120, grouped: 2 * 8 * 9 * 30, up: 8 * 16 * 120}
    for layer, count in multiplications.items():
        assert flops_of(lambda layer=layer: layer(x)) == 2 * 2 * count
        assert flops_of(lambda layer=layer: layer(x).sum().backward()) == 3 * 2 * 2 * count
        fixed = x.detach()  # an image needs no gradient
        assert flops_of(lambda layer=layer, fixed=fixed: layer(fixed).sum().backward()) == 2 * 2 * 2 * count


def test_flops_of_a_step_are_those_of_its_layers():
    config = parse_config({"model": {"backbone": "dla34_narrow"}, "dataset": {"resolution": [96, 64]}})
    model, batch, cells = build_model(config), 2, 50
    forward = {}

    def count(layer, inputs, output):
        positions = (inputs[0] if isinstance(layer, torch.nn.ConvTranspose2d) else output).shape[2:].numel()
        forward[layer] = 2 * batch * positions * layer.weight.numel()

    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            layer.register_forward_hook(count)
    model(torch.randn(batch, 3, 64, 96), torch.zeros(batch, cells, dtype=torch.int64))
    # object heads are products: 3x3 neighbourhoods to 256 channels, and those to what each head says
    heads = 2 * batch * cells * 256 * (len(OBJECT_HEADS) * 9 * model.neck.out_channels + sum(OBJECT_HEADS.values()))
    image_gradient = forward[model.backbone.base_layer[0]]
    step = network.Bench(config, batch).training()
    assert flops_of(step) == 3 * (sum(forward.values()) + heads) - image_gradient


def test_what_fails_on_a_gpu_is_a_row(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def out_of_memory():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def wrong():
        raise RuntimeError("illegal\naccess")

    (row,) = attempt(gpu_job(), "x", out_of_memory)
    assert (row["value"], row["note"]) == (None, "out of memory") and "failed" not in row
    (row,) = attempt(gpu_job(), "x", wrong)
    assert row["note"] == "failed: RuntimeError: illegal access" and row["failed"]
    (row,) = attempt(gpu_job(seconds=5), "x", wrong)
    assert row["note"] == "not measured: out of time"


def test_a_section_that_fails_costs_no_other(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_sections.py").write_text(
        "import os, time\n"
        "def row(name): return {'name': name, 'value': 1.0, 'unit': '', 'ratio': None, 'bar': None}\n"
        "def good(job): yield row('good')\n"
        "def hangs(job):\n    time.sleep(1000)\n    yield row('never')\n"
        "def dies(job):\n    yield row('before it dies')\n    os._exit(3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    seconds = {"hangs": 5.0}
    names = ("dies", "absent", "hangs", "good")
    sections = {name: (f"broken_sections:{name}", seconds.get(name, 100.0)) for name in names}
    monkeypatch.setattr(gpu, "SECTIONS", sections)
    assert gpu.main(["--device", "cpu", "--json", str(tmp_path / "a.json")]) == 1
    content = json.loads((tmp_path / "a.json").read_text())
    notes = {(row["section"], row["name"]): row.get("note") for row in content["rows"]}
    assert notes["dies", "before it dies"] is None and "status 3" in notes["dies", "section dies"]
    assert "absent" in notes["absent", "section absent"]
    assert "time is up" in notes["hangs", "section hangs"]
    assert ("good", "good") in notes
    assert "torch" in content["machine"]
    assert gpu.main(["--device", "cpu", "--only", "good", "--limit", "0"]) == 0
    assert "not measured: out of time" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_gpu_bench_refuses_a_device_that_is_not_there(tmp_path, capsys):
    assert gpu.main(["--device", "cuda", "--json", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "a.json").exists()
    (tmp_path / "file").touch()
    assert gpu.main(["--device", "cpu", "--json", str(tmp_path / "file" / "a.json")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.slow
def test_the_gpu_bench_runs_on_the_cpu(tmp_path):
    arguments = ["--quick", "--device", "cpu", "--limit", "5400", "--json", str(tmp_path / "a.json")]
    assert gpu.main(arguments) == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert {row.get("section") for row in rows} == {*gpu.SECTIONS, None}
    values = {row["name"]: row["value"] for row in rows}
    assert len(values) == len(rows)
    notes = {row["name"]: row.get("note") for row in rows if row["value"] is None}
    assert set(notes.values()) == {"not measured: no CUDA device"}
    for name in ("product, 8192^3", "profile", "CUDA graph", "reduce-overhead", "peak memory, training", "+ compile"):
        assert any(name in missing for missing in notes), name
    for name in ("plain float32", "float32", "amp bf16"):
        assert values[f"training, {name}, batch 2"] > 0
    assert 1 < values["FLOPs of a training image"] < 1.5
    assert 0 < values["largest relative difference of a loss term, amp bf16"] < 0.1
    epoch, saving, frames = values["epoch, amp bf16"], values["checkpoint, amp bf16"], 24
    assert values["140 epochs, amp bf16"] == pytest.approx(140 * (epoch * 3712 / frames + saving) / 60)
    assert values["latency, folded, true float32, batch 1"] <= values["p95 of latency, folded, true float32, batch 1"]
    assert values["decoding of 50 detections"] > 0
    assert any(name.startswith("best step at batch 2") for name in values)


def allocate_60_megabytes():
    return lambda: np.ones(60_000_000, np.uint8).sum()


@pytest.mark.slow
def test_a_side_does_not_inherit_its_parents_memory():
    """Linux lets a process begin with the peak of the one that started it, if one asks getrusage."""
    ballast = np.ones(1_500_000_000, np.uint8)  # more than a process that has just begun
    side = Side(allocate_60_megabytes)
    assert 50 < side.peak() < 150
    side.close()
    assert len(ballast)
