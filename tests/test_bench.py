"""Both sides of the benchmarks compute the same values, and the scripts run."""

import json
import zlib

import numpy as np
import pytest
import torch

import make_obj_depth
from lib.config import Config, Dataset, General, parse_config
from lib.datasets.kitti import KITTI
from lib.datasets.samples import TrainingSamples
from lib.models import build_model
from lib.models.centernet3d import IMAGE_MEAN, IMAGE_STD
from tools.bench import gpu, network, samples
from tools.bench.plain import DenseHeads, plain_sample
from tools.bench.timing import Report, Row, Side


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


def test_missed_bars_are_reported(tmp_path, capsys):
    report = Report("x")
    report.add_sides({"plain": [3.0, 1.0, 2.0], "fast": [0.5, 0.4, 9.0]}, "ms/y", 10, {"fast": 3.9})
    assert report.show(tmp_path / "a.json") == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(r["name"], r["value"], r["ratio"]) for r in rows] == [("plain", 200.0, 1.0), ("fast", 50.0, 4.0)]
    assert "MISSED" not in capsys.readouterr().out
    report.rows.append(Row("slow", 1, "s", ratio=1.5, bar=2))
    assert report.show(None) == 1 and "bar 2 x MISSED" in capsys.readouterr().out


@pytest.mark.slow
def test_sample_and_network_benches_run(tmp_path):
    samples.main(["--frames", "3", "--repeats", "1", "--json", str(tmp_path / "s.json")])
    size = ["--backbone", "dla34_narrow", "--resolution", "96", "64", "--repeats", "1"]
    network.main([*size, "--json", str(tmp_path / "n.json")])
    names = {r["name"] for f in "sn" for r in json.loads((tmp_path / f"{f}.json").read_text())["rows"]}
    assert {"cache: ram, depth maps painted", "training", "inference", "decoding of 50 detections"} <= names


def test_a_failed_measurement_is_a_row(monkeypatch):
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    def exhaust_memory():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    def fail():
        raise RuntimeError("illegal\naccess")

    (row,), failed = gpu.attempt("x", exhaust_memory, 1)
    assert (row.value, row.note, failed) == (None, "not measured: out of memory", False)
    (row,), failed = gpu.attempt("x", fail, 1)
    assert row.note == "failed: RuntimeError: illegal access" and failed
    (row,), failed = gpu.attempt("x", fail, -1)
    assert row.note == "not measured: no time left" and not failed


def test_the_gpu_bench_continues_after_a_failure(tmp_path, monkeypatch, capsys):
    def measurements(self):
        def fail():
            raise RuntimeError("broken")

        yield "first", 0, fail
        yield "second", 0, lambda: [Row("second", 2.0, "s")]
        yield "third", 10_000, fail

    monkeypatch.setattr(gpu.DeviceBench, "measurements", measurements)
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "a.json")]) == 1
    content = json.loads((tmp_path / "a.json").read_text())
    assert [row["value"] for row in content["rows"]] == [None, 2.0, None]
    assert "broken" in content["rows"][0]["note"] and "no time left" in content["rows"][2]["note"]
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert gpu.main(["--device", "cpu", "--json", str(tmp_path / "file" / "a.json")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_gpu_bench_needs_a_gpu(tmp_path, capsys):
    assert gpu.main(["--json", str(tmp_path / "a.json")]) == 2
    assert "nothing was measured" in capsys.readouterr().err
    assert not (tmp_path / "a.json").exists()


@pytest.mark.slow
def test_the_gpu_bench_runs_on_the_cpu(tmp_path):
    arguments = ["--quick", "--device", "cpu", "--limit", "5400", "--json", str(tmp_path / "a.json")]
    assert gpu.main(arguments) == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    values = {row["name"]: row["value"] for row in rows}
    assert len(values) == len(rows)
    missing = {row["name"]: row["note"] for row in rows if row["value"] is None}
    assert len(missing) == 2 and all("compiled" in name and "no CUDA device" in missing[name] for name in missing)
    for name in ("plain float32", "float32", "bf16"):
        assert values[f"training, {name}"] > 0
    assert values["inference, batch 1"] > 0
    best = max(values[f"training, {name}"] for name in gpu.VARIANTS if f"training, {name}" not in missing)
    assert values["140 epochs of 3712 images at that rate"] == pytest.approx(140 * 3712 / best / 3600)
    assert any(name.startswith("loader") for name in values)


def allocate_60_megabytes():
    return lambda: np.ones(60_000_000, np.uint8).sum()


@pytest.mark.slow
def test_a_side_does_not_inherit_its_parents_memory():
    """On Linux a new process inherits its parent's peak memory in getrusage."""
    ballast = np.ones(1_500_000_000, np.uint8)  # more than a new process has
    side = Side(allocate_60_megabytes)
    assert 50 < side.measure_peak() < 150
    side.close()
    assert len(ballast)
