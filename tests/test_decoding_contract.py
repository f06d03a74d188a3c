"""What decoding depends on comes from the checkpoint; images of another shape than the input are decoded exactly."""

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from lib.config import dump_config, parse_config
from lib.datasets import build_dataset
from lib.engine.network import load_network
from lib.models import build_model
from lib.ops.affine import window_to_input
from lib.pipeline.run import build_initial_model
from lib.postprocess import DecodeSettings, decode_detections
from lib.structures import Calibration, FrameInfo
from lib.structures.camera import KITTI_P2
from tests.test_postprocess import CLASS_NAMES
from tools import export_onnx, predict, train_val

SIZES = {"Pedestrian": [1.7, 0.6, 0.8], "Car": [1.5, 1.6, 3.5], "Cyclist": [1.7, 0.6, 1.7]}
DATASET = {"resolution": [96, 64], "num_workers": 0, "meanshape": True, "mean_sizes": SIZES}


def configuration(**dataset):
    own = {"dataset": DATASET | dataset, "model": {"backbone": "dla34_narrow", "pretrained": False}}
    return parse_config(own | {"trainer": {"gpu_ids": []}})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("trained") / "c.pth"
    config = configuration()
    torch.save({"epoch": 1, "model_state": build_model(config).state_dict(), "config": dump_config(config)}, path)
    return path


CONTRADICTIONS = {
    "dataset.class_names": {"class_names": ["Car", "Pedestrian", "Cyclist"]},
    "dataset.meanshape": {"meanshape": False},
    "dataset.mean_sizes": {"mean_sizes": SIZES | {"Car": [3.0, 1.6, 3.5]}},
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_a_configuration_that_contradicts_a_checkpoint_is_an_error(checkpoint, tmp_path, capsys, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    changed = configuration(**CONTRADICTIONS[key])
    with pytest.raises(ValueError, match=rf"c\.pth was trained with {key} .*, the configuration has"):
        load_network(checkpoint, build_model, changed)
    resumed = replace(changed, trainer=replace(changed.trainer, resume_model=str(checkpoint)))
    with pytest.raises(ValueError, match=f"was trained with {key}"):
        build_initial_model(resumed, tmp_path, checkpoint)
    section = {"dataset": dump_config(changed)["dataset"], "model": dump_config(changed)["model"]}
    (tmp_path / "x.yaml").write_text(repr(section))
    cv2.imwrite("a.png", np.zeros((64, 96, 3), np.uint8))
    common = ["--checkpoint", str(checkpoint), "--config", "x.yaml"]
    for command in (
        lambda: predict.main([*common, "--input", "a.png", "--fx", "90", "--out", "o", "--cpu"]),
        lambda: export_onnx.main([*common, "--out", "m.onnx"]),
    ):
        assert command() == 2 and f"was trained with {key}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "x.yaml"]


def test_equal_values_and_official_checkpoints_are_accepted(checkpoint, tmp_path):
    names = configuration(class_names=["pedestrian", "CAR", "cyclist"], mean_sizes={})
    with pytest.raises(ValueError, match="mean_sizes"):
        load_network(checkpoint, build_model, names)
    load_network(checkpoint, build_model, configuration(class_names=["pedestrian", "CAR", "cyclist"]))
    load_network(checkpoint, build_model, configuration(meanshape=True, writelist=["Cyclist"]))
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"epoch": 1, "model_state": state["model_state"]}, tmp_path / "official.pth")
    load_network(tmp_path / "official.pth", build_model, configuration(class_names=["Car", "Cyclist", "Pedestrian"]))


def test_an_evaluation_with_swapped_classes_is_refused(tiny_kitti, checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = dump_config(configuration(class_names=["Car", "Pedestrian", "Cyclist"]))
    (tmp_path / "x.yaml").write_text(repr({"dataset": config["dataset"], "model": config["model"]}))
    changes = [f"general.dataroot={tiny_kitti}", f"tester.checkpoint={checkpoint}", "trainer.gpu_ids=[]"]
    assert train_val.main(["--config", "x.yaml", "-e", "--set", *changes]) == 2
    assert "was trained with dataset.class_names ['Pedestrian', 'Car', 'Cyclist']" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["Forklift", "Pallet"], ["Car", "Pedestrian", "Cyclist"]])
def test_weights_of_other_classes_start_a_training(checkpoint, tmp_path, caplog, names):
    config = configuration(class_names=names, writelist=names, meanshape=False, mean_sizes={})
    config = replace(config, trainer=replace(config.trainer, pretrain_model=str(checkpoint)))
    trained = torch.load(checkpoint, weights_only=True)["model_state"]
    with caplog.at_level(logging.WARNING):
        state = build_initial_model(config, tmp_path, None).state_dict()
    (record,) = caplog.records
    said = f"(Pedestrian, Car, Cyclist), this run has {', '.join(names)}: the heatmap's last layer starts"
    assert said in record.getMessage()
    fresh = {"heatmap.2.weight", "heatmap.2.bias"}
    assert state["heatmap.2.weight"].shape[0] == len(names) and torch.all(state["heatmap.2.bias"] == -2.19)
    assert all(torch.equal(state[name], value) for name, value in trained.items() if name not in fresh)
    other = replace(config, model=replace(config.model, backbone="dla34"))
    with pytest.raises(ValueError, match="a checkpoint of another model"):
        build_initial_model(other, tmp_path, None)


def test_weights_without_a_head_start_a_training(checkpoint, tmp_path, caplog):
    """A head that this project's model has and an official checkpoint has not, such as one of docs/extending.md."""
    trained = torch.load(checkpoint, weights_only=True)
    kept = {name: value for name, value in trained["model_state"].items() if not name.startswith("heading.")}
    torch.save(trained | {"model_state": kept}, tmp_path / "older.pth")
    config = configuration()
    config = replace(config, trainer=replace(config.trainer, pretrain_model=str(tmp_path / "older.pth")))
    with caplog.at_level(logging.WARNING):
        state = build_initial_model(config, tmp_path, None).state_dict()
    (record,) = caplog.records
    assert record.getMessage().endswith("older.pth: weights that it does not have start anew: head heading")
    assert all(torch.equal(state[name], value) for name, value in kept.items())
    assert not torch.equal(state["heading.0.weight"], trained["model_state"]["heading.0.weight"])
    with pytest.raises(ValueError, match=r"older\.pth: a checkpoint of another model: it lacks heading\.0\.weight"):
        load_network(tmp_path / "older.pth", build_model, config)
    bare = {name: value for name, value in kept.items() if name.startswith(("backbone", "neck", "heatmap"))}
    torch.save(trained | {"model_state": bare}, tmp_path / "older.pth")
    with pytest.raises(ValueError, match=r"older\.pth: a checkpoint of another model: it lacks offset_2d"):
        build_initial_model(config, tmp_path, None)


def detections(size, mode, resolution=(1280, 384)):
    frame = FrameInfo("a", size, Calibration(np.array(KITTI_P2)))
    cells = torch.arange(5)[None] * 2003 + 11
    outputs = {"scores": torch.ones(1, 5), "classes": torch.ones(1, 5, dtype=torch.int64), "indices": cells}
    generator = torch.Generator().manual_seed(0)
    channels = {"offset_2d": 2, "size_2d": 2, "offset_3d": 2, "depth": 2, "size_3d": 3, "heading": 24}
    outputs |= {name: torch.rand(1, 5, n, generator=generator) for name, n in channels.items()}
    return decode_detections(outputs, [frame], DecodeSettings(CLASS_NAMES, resolution, 0.5, map_to_image=mode))[0]


@pytest.mark.parametrize("size", [(1242, 375), (1224, 370), (1238, 374), (1241, 376)])
def test_auto_is_official_for_kittis_images(size):
    assert detections(size, "auto") == detections(size, "official") != detections(size, "exact")


@pytest.mark.parametrize("size", [(1920, 1080), (720, 1280), (3000, 375)])
def test_auto_is_exact_for_images_of_another_shape(size):
    found = detections(size, "auto")
    assert found == detections(size, "exact") != detections(size, "official")
    to_input = window_to_input((size[0] / 2, size[1] / 2), size[0], (1280, 384))
    middle = np.mean(np.reshape(found[0].bbox_img, (2, 2)), axis=0)
    assert to_input.apply(middle)[1] / 4 == pytest.approx(11 // 320 + 0.5, abs=0.5)  # in the row of the cell


@pytest.mark.parametrize(("size", "fits"), [((640, 360), "[96, 64]"), ((360, 640), "[96, 192]"), ((960, 640), None)])
def test_rows_outside_the_input_are_named(tiny_kitti, caplog, size, fits):
    for path in (tiny_kitti / "training/image_2").iterdir():
        cv2.imwrite(str(path), np.zeros((size[1], size[0], 3), np.uint8))
    config = configuration(resolution=[96, 32 if fits else 64])
    config = replace(config, general=replace(config.general, dataroot=str(tiny_kitti)))
    with caplog.at_level(logging.WARNING):
        build_dataset(config, "val")
    said = [record.getMessage() for record in caplog.records if "network input" in record.getMessage()]
    assert len(said) == (fits is not None)
    if fits:
        share = round(100 * (1 - 32 * size[0] / (96 * size[1])))
        assert f"{share} % of the rows of {size[0]} x {size[1]} images" in said[0] and f"{fits} shows all" in said[0]
