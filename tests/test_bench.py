"""Both sides of the benchmarks compute the same values, and the scripts run."""

import json

import numpy as np
import pytest
import torch

from lib.config import parse_config
from lib.evaluation import dump_matches
from lib.models import build_model
from tools.bench import coverage, gpu, network, samples, timing, twins
from tools.bench.network import DenseHeads
from tools.bench.timing import Report, Row


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


def test_coverage_of_intervals(tmp_path, capsys):
    arguments = ["--detectors", "2", "--clusters", "6", "--replicates", "20", "--json", str(tmp_path / "x.json")]
    assert coverage.main(arguments) == 0
    assert "R40, clusters" in capsys.readouterr().out
    shares = json.loads((tmp_path / "x.json").read_text())["shares"]
    assert set(shares) == {f"{recall}, {unit}" for recall in ("R40", "all") for unit in ("clusters", "frames")}
    labels, detections, of_frame = coverage.draw_frames(np.random.default_rng(0), 6, 1.0, 1.0, 0.5)
    assert labels.n_frames == detections.n_frames == len(of_frame) and of_frame.max() == 5
    states = [row.split(",")[-9] for row in dump_matches(labels, detections, ["Car"]).splitlines()[1:]]
    assert min(map(states.count, ("tp", "fp", "fn"))) > 5  # matched by place, wrong, and missed


@pytest.mark.slow
def test_intervals_hold_the_expected_ap_with_the_right_clusters():
    held = np.mean(list(coverage.simulate(200, 45, 1000, 0)), axis=0)[..., 0]
    assert (held[0] >= 0.9).all() and (held[0] <= 0.98).all() and (held[1] < 0.8).all()


def test_sides_alternate_and_medians_count(tmp_path, monkeypatch, capsys):
    clock, calls = [0.0], []
    monkeypatch.setattr(timing, "perf_counter", lambda: clock[0])

    def side(name, *seconds):
        durations = iter((100, *seconds))  # the first call does not count

        def call():
            calls.append(name)
            clock[0] += next(durations)

        return call

    report = Report("x")
    report.time_sides({"plain": side("plain", 3, 1, 2), "fast": side("fast", 0.5, 0.4, 9)}, 3, "ms/y", 10)
    assert calls == ["plain", "fast"] * 4
    report.show(tmp_path / "a.json")
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [(r["name"], r["value"], r["ratio"]) for r in rows] == [("plain", 200.0, 1.0), ("fast", 50.0, 4.0)]
    assert "fast    50  ms/y  4.00 x" in capsys.readouterr().out


@pytest.mark.slow
def test_sample_and_network_benches_run(tmp_path):
    samples.main(["--frames", "3", "--repeats", "1", "--json", str(tmp_path / "s.json")])
    size = ["--backbone", "dla34_narrow", "--resolution", "96", "64", "--repeats", "1"]
    network.main([*size, "--json", str(tmp_path / "n.json")])
    names = {r["name"] for f in "sn" for r in json.loads((tmp_path / f"{f}.json").read_text())["rows"]}
    assert {"cache: ram, depth maps painted", "training", "inference", "decoding of 50 detections"} <= names


def test_the_gpu_bench_continues_after_a_failure(tmp_path, monkeypatch, capsys):
    def fail(error):
        raise error

    def measurements(self):
        yield "first", 0, lambda: fail(RuntimeError("illegal\naccess"))
        yield "second", 0, lambda: [Row("second", 2.0, "s")]
        yield "third", 10_000, lambda: fail(AssertionError)
        yield "fourth", 0, lambda: fail(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate"))

    monkeypatch.setattr(gpu.DeviceBench, "measurements", measurements)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    assert gpu.main(["--device", "cpu", "--quick", "--json", str(tmp_path / "a.json")]) == 1
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["value"] for row in rows] == [None, 2.0, None, None]
    notes = ["failed: RuntimeError: illegal access", "", "not measured: no time left", "not measured: out of memory"]
    assert [row["note"] for row in rows] == notes


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_the_gpu_bench_needs_a_gpu(tmp_path, capsys):
    assert gpu.main(["--json", str(tmp_path / "a.json")]) == 2
    assert "nothing was measured" in capsys.readouterr().err


@pytest.mark.slow
def test_the_gpu_bench_runs_on_the_cpu(tmp_path):
    arguments = ["--quick", "--device", "cpu", "--limit", "1e9", "--json", str(tmp_path / "a.json")]
    assert gpu.main(arguments) == 0
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    values = {row["name"]: row["value"] for row in rows}
    assert len(values) == len(rows)
    assert sum(value is None for value in values.values()) == 2  # those compiled need a GPU
    assert values["inference, batch 1"] > 0
    hours = 140 * 3712 / values["epoch, bf16"] / 3600
    assert values["140 epochs of 3712 images at that rate"] == pytest.approx(hours)
    assert values["losses of 20 steps"] == 0  # both sides are the CPU
    assert any(name.startswith("loader alone") for name in values)


def twin_run(folder, epochs, factor=1.0, **zero_share):
    """A run whose terms are ``factor`` times those of the official code."""
    results = folder / "results/checkpoint_epoch_15/small_val"
    results.mkdir(parents=True)
    records = [
        {
            "epoch": entry["epoch"],
            "losses": {name: (value or 1) * factor for name, value in entry["losses"].items()},
            "zero_share": {"quasi_isometric": entry["share_of_steps_with_quasi_isometric_0"], **zero_share},
        }
        for entry in epochs
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    values = {metric: {"R40": [0.5, 0.55, 0.55] if metric == "bbox" else [0, 0, 0]} for metric in ("bbox", "bev", "3d")}
    (results / "ap.json").write_text(json.dumps({"classes": ["Car"], "official": {"Car": values}, "loose": {}}))
    total = {"median_absolute": 2.5, "mean_absolute": 3, "mean_relative": 0.1, "recall": 0.5}
    (results / "depth_error.json").write_text(json.dumps([{"class": "Car", "total": total, "bands": []}]))
    return folder


def test_the_same_training_and_another_one(tmp_path, capsys):
    official = json.loads(twins.OFFICIAL.read_text())["seeds"]
    same = [twin_run(tmp_path / f"same{factor}", official[0], factor) for factor in (0.8, 1.0, 1.2)]
    assert twins.main([*map(str, same), "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "official seed 1" not in text and "- official seed 2, share of steps" in text
    assert "| heatmap | 7.09, 6.14 (5.67 .. 8.51)" in text
    assert "| Car depth error: median [m] |  |  |  |  |  | 2.54 (2.50 .. 2.50) |" in text
    assert (tmp_path / "out/table.md").read_text() == text and (tmp_path / "out/terms.png").stat().st_size > 10_000


def test_a_figure_is_compared_with_the_widened_range():
    seed = {"depth": {1: 9.0, 2: 1.0, 3: 2.0, 4: 0.0, 5: 1.0}}
    others = [{"depth": {1: 9.0, 2: 1.05, 3: 2.3, 4: 0.0}}, {"depth": {2: 1.2, 3: 3.0, 4: 0.0}}]
    assert twins.compare_ranges(seed, others) == [("depth", 2, True), ("depth", 3, False)]


def test_steps_without_an_object_do_not_count(tmp_path):
    epochs = json.loads(twins.OFFICIAL.read_text())["seeds"][1]
    run = twins.read_own(twin_run(tmp_path / "run", epochs, depth=0.5))
    assert run["depth"][2] == 2 * epochs[1]["losses"]["depth"] and run["heading"][2] == epochs[1]["losses"]["heading"]
    assert run["total"] == {}  # its steps without a depth target cannot be taken out
    assert twins.read_own(twin_run(tmp_path / "none", epochs, depth=1.0))["depth"] == {}


def test_runs_that_cannot_be_compared_are_named(tmp_path, capsys):
    epochs = json.loads(twins.OFFICIAL.read_text())["seeds"]
    short, whole = twin_run(tmp_path / "short", epochs[1]), twin_run(tmp_path / "whole", epochs[0])
    (twin_run(tmp_path / "unevaluated", epochs[1]) / "results/checkpoint_epoch_15/small_val/ap.json").unlink()
    expected = "expected metrics.jsonl of a run with both losses"
    for runs, message in (
        ([tmp_path / "unevaluated"], f"unevaluated: {expected}"),
        ([tmp_path / "absent"], f"absent: {expected}"),
        ([short, whole], "short: expected a run of 15 epochs, got 11"),
        ([whole, whole], "expected at least two runs, each given once"),
    ):
        assert twins.main([*map(str, runs), "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err and not (tmp_path / "out").exists()
