"""Gradients of the losses of a network: independent answers, and the command."""

import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.analysis import loss_gradients
from lib.analysis.depth_space import all_pairs
from lib.analysis.loss_gradients import Compared, LossGradients, gradients_table, measure_loss_gradients
from lib.config import General, load_config
from lib.datasets import build_dataset
from lib.datasets.samples import training_loader
from lib.losses import Criterion
from lib.models import build_model
from lib.visualization.loss_gradients import loss_gradients_png
from tools import loss_gradients as tool

YAML = """
general: {random_seed: 3, qi: true, obj_depth: true, rad: 60.0}
dataset: {batch_size: 3, num_workers: 0, resolution: [320, 96], writelist: [Car, Pedestrian], random_crop: 0,
  obj_depth_source: labels}
model: {backbone: dla34_narrow, pretrained: false}
losses: {depth: 2.0, size_3d: 0.0}
"""


@pytest.fixture
def project(tiny_kitti, tmp_path):
    (tiny_kitti / "ImageSets/train.txt").write_text("000000\n000001\n000003\n")
    (tmp_path / "x.yaml").write_text(YAML)
    config = load_config(tmp_path / "x.yaml", [f"general.dataroot={tiny_kitti}"])
    torch.manual_seed(0)
    model = build_model(config)
    for epoch in (2, 10):
        torch.save({"epoch": epoch, "model_state": model.state_dict()}, tmp_path / f"checkpoint_epoch_{epoch}.pth")
    return config, model


def call(tmp_path, *arguments, checkpoints=(10, 2)):
    given = ["--config", str(tmp_path / "x.yaml"), "--out", str(tmp_path / "out"), "--checkpoints"]
    given += [str(tmp_path / f"checkpoint_epoch_{epoch}.pth") for epoch in checkpoints]
    return tool.main([*given, "--set", f"general.dataroot={tmp_path / 'KITTI'}", *arguments])


def test_the_gradients_are_those_of_training(project, tmp_path):
    config, model = project
    frames, path = build_dataset(config, "train", training=True), tmp_path / "checkpoint_epoch_2.pth"
    figures = measure_loss_gradients("x", path, config, frames, 1, torch.device("cpu")).figures()
    batch = next(iter(training_loader(frames, config)))
    model.train()
    gradients = {}
    for name in figures["losses"]:  # by another path: one backward pass of each loss
        model.zero_grad()
        losses = Criterion(config.general, config.losses)(model(batch.images, batch.targets["indices"]), batch.targets)
        losses[name].backward()
        shared = [*model.backbone.parameters(), *model.neck.parameters()]
        gradients[name] = torch.cat([p.grad.flatten() for p in shared if p.grad is not None]).double()
    assert set(losses) == set(gradients) and len(gradients) == 9
    for name, own in gradients.items():
        others = sum(each for other, each in gradients.items() if other != name)
        found = figures["losses"][name]
        assert found["gradient_norm"] == pytest.approx(own.norm().item(), rel=1e-3, abs=1e-6)
        assert found["ratio_mean"] == pytest.approx((own.norm() / others.norm()).item(), rel=1e-2, abs=1e-6)
        if name not in ("size_3d", "quasi_isometric"):
            cosine = (own @ others / (own.norm() * others.norm())).item()
            assert found["cosine"] == pytest.approx(cosine, abs=0.02) and found["zero_share"] == 0
    assert figures["losses"]["size_3d"]["zero_share"] == 1 and math.isnan(figures["losses"]["size_3d"]["cosine"])
    assert figures["descriptors"]["pairs"] > 0 and figures["epoch"] == 2


def made_up(scale: float, name="a") -> LossGradients:
    """Two losses with gradients (3, 0) and (0, 4) in one batch, (0, 0) and (1, 0) in another; d_f is scale * d_z."""
    heatmap, depth = [Compared(3, 4, 0), Compared(0, 1, 0)], [Compared(4, 3, 0), Compared(1, 0, 0)]
    z = np.linspace(5, 14, 10)
    pairs, bounds = all_pairs(scale * z[:, None], z), General(K=2.0, B=0.5, rad=4.5)
    return LossGradients(name, None, {"heatmap": heatmap, "depth": depth}, pairs, bounds)


def test_figures_worked_out_by_hand():
    figures = made_up(0.25).figures()
    heatmap, depth = figures["losses"]["heatmap"], figures["losses"]["depth"]
    assert (heatmap["gradient_norm"], heatmap["zero_share"], heatmap["cosine"]) == (1.5, 0.5, 0.0)
    assert heatmap["ratio_mean"] == pytest.approx((3 / 4 + 0) / 2) and depth["ratio_mean"] == pytest.approx(4 / 3)
    found = figures["descriptors"]
    # distances 1 to 4 m occur 9, 8, 7 and 6 times; d_f = d_z / 4 is below d_z / 2 - 0.5 from 3 m on
    assert (found["pairs"], found["median_depth_distance"], found["above"]) == (30, 2.0, 0.0)
    assert found["scale_to_depth"] == pytest.approx(4.0) and found["below"] == pytest.approx(13 / 30)
    assert found["median_excess_below"] == pytest.approx(0.25) and math.isnan(found["median_excess_above"])
    assert made_up(4.0).figures()["descriptors"]["above"] == 1
    table = gradients_table([made_up(0.25), made_up(4.0, "b")])
    assert "too close [%]" in table and table.splitlines()[0].split() == ["a", "b"]


def test_the_command_and_its_image(project, tmp_path, capsys):
    assert call(tmp_path, "--batches", "2") == 0
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if "checkpoint" in line)
    assert "quasi_isometric" in printed and header.split() == ["checkpoint_epoch_2", "checkpoint_epoch_10"]
    first, second = json.loads((tmp_path / "out/loss_gradients.json").read_text())
    assert (first["epoch"], second["epoch"], first["batches"]) == (2, 10, 1)  # the split has one
    assert first["losses"] == second["losses"]  # the same weights
    for content in ((tmp_path / "out/loss_gradients.png").read_bytes(), loss_gradients_png([made_up(1.0)])):
        assert (cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) != 255).mean() > 0.02
    assert call(tmp_path) == 2 and "--overwrite replaces it" in capsys.readouterr().err


def test_mistakes_are_named(project, tmp_path, capsys):
    for arguments, error in ((["--batches", "0"], "--batches must be >= 1, got 0"),):
        assert call(tmp_path, *arguments) == 2 and error in capsys.readouterr().err
    assert call(tmp_path, checkpoints=(3,)) == 2 and "checkpoint_epoch_3.pth" in capsys.readouterr().err
    state = torch.load(tmp_path / "checkpoint_epoch_2.pth")
    state["model_state"] = {name: w for name, w in state["model_state"].items() if "obj_depth" not in name}
    torch.save(state, tmp_path / "checkpoint_epoch_4.pth")
    assert call(tmp_path, checkpoints=(2, 4)) == 2
    assert "general.obj_depth is true, but it has no obj_depth head" in capsys.readouterr().err
    state["model_state"]["backbone.base_layer.1.weight"].fill_(3e38)
    torch.save(state, tmp_path / "checkpoint_epoch_4.pth")
    assert call(tmp_path, "general.obj_depth=false", checkpoints=(4,)) == 2
    assert "is not finite; frames 00000" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").write_text("")
    assert call(tmp_path) == 2 and "--out must be a folder" in capsys.readouterr().err


def test_pairs_are_those_of_the_loss(project, tmp_path):
    """With the fitted scale and one batch d_f fits d_z with factor 1; these pairs give the criterion's loss."""
    config, _ = project
    general = replace(config.general, qi_fit_scale=True, qi_lower_bound="corrected", T=1.0)
    config = replace(config, general=general)
    frames = build_dataset(config, "train", training=True)
    found = measure_loss_gradients("x", tmp_path / "checkpoint_epoch_2.pth", config, frames, 1, torch.device("cpu"))
    assert found.figures()["descriptors"]["scale_to_depth"] == pytest.approx(1.0)
    assert found.figures()["quasi_isometric"]["qi_fit_scale"] is True
    near = found.pairs.near(general)
    d_z, d_f = found.pairs.depth_distance[near], found.pairs.feature_distance[near]
    batch = next(iter(training_loader(frames, config)))
    model, _ = loss_gradients.load_training_model(tmp_path / "checkpoint_epoch_2.pth", config)
    loss = Criterion(general)(model.train()(batch.images, batch.targets["indices"]), batch.targets)["quasi_isometric"]
    expected = 0.0
    for excess in (d_f - general.K * d_z - general.B, d_z / general.K - d_f - general.B):
        violated = excess[excess > 0]
        expected += 0.5 * np.log((1 + np.exp(violated)) / 2).mean() if len(violated) else 0.0
    assert expected > 0 and loss.item() == pytest.approx(expected, rel=1e-3)
