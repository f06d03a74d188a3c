"""That both sides of the benches do the same work, and that the scripts run."""

from __future__ import annotations

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
from tools.bench import network, object_depth, samples
from tools.bench.plain import DenseHeads, plain_sample
from tools.bench.report import Report


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
