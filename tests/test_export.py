"""Export to ONNX: the file against network and decoder, the comparison before it is written, and the runner."""

import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib.config import Config, dump_config, parse_config
from lib.datasets.augmentation import Augmentation
from lib.engine.checkpoint import read_checkpoint, save_checkpoint
from lib.export import exporter
from lib.export.check import LEAST_SCALE, Comparison, random_batches
from lib.export.onnx_graph import FORMAT, INPUTS, OUTPUTS, ExportableDetector, describe_detector, to_onnx
from lib.models import build_model
from lib.prediction import load_detector
from tests.conftest import CALIB, PROJECT
from tools import export_onnx, run_onnx, train_val

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
RESOLUTION = (96, 64)
OWN_CLASSES = {"class_names": ["Van", "Car"], "writelist": ["Van"], "mean_sizes": {"Van": [2.0, 1.9, 5.0]}}
OTHER_MODES = {
    "dataset": OWN_CLASSES | {"meanshape": True},
    "tester": {"map_to_image": "exact", "topk": 7, "threshold": 0.125},
}


def configuration(variant):
    """``variant`` of a narrow network at a small size, with the training-only head."""
    dataset = {"resolution": list(RESOLUTION), "num_workers": 0} | variant.get("dataset", {})
    model, general = {"backbone": "dla34_narrow", "pretrained": False}, {"obj_depth": True}
    return parse_config(variant | {"dataset": dataset, "model": model, "general": general})


def random_model(config, seed=0):
    """Random weights with BatchNorm statistics of random images, and with plausible sizes and depths."""
    torch.manual_seed(seed)
    model = build_model(config).train()
    width, height = config.dataset.resolution
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # plain averages
        for _ in range(3):
            model(torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8))
        for name, bias in {"offset_2d": 0.5, "size_2d": 8, "depth": -2.5, "offset_3d": 0.5, "size_3d": 1.8}.items():
            torch.nn.init.normal_(getattr(model, name)[2].weight, std=0.05)
            torch.nn.init.constant_(getattr(model, name)[2].bias, bias)
        torch.nn.init.normal_(model.heading[0].weight, std=0.05)
        torch.nn.init.normal_(model.heading[2].weight, std=0.2)
        model.depth[2].bias[1] = 0.3  # log variance
    return model.eval()


@pytest.fixture(scope="module")
def needed():
    """The optional packages."""
    for name in PACKAGES:
        pytest.importorskip(name)


@dataclass(frozen=True)
class Exported:
    """A file, what it was made from, and the log of the export."""

    config: Config
    model: torch.nn.Module
    checkpoint: Path
    onnx: Path
    log: str


@pytest.fixture(scope="module")
def exported(needed, tmp_path_factory):
    folder, config = tmp_path_factory.mktemp("exported"), configuration({})
    model, checkpoint, path = random_model(config), folder / "random.pth", folder / "new" / "m.onnx"
    torch.save({"epoch": 0, "model_state": model.state_dict(), "config": dump_config(config)}, checkpoint)
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter.logger, "info", lambda text, *args: lines.append(text % args))
        assert export_onnx.main(["--checkpoint", str(checkpoint), "--out", str(path)]) == 0
    return Exported(config, model, checkpoint, path, "\n".join(lines))


def test_other_modes_and_classes_come_through_the_file(needed, monkeypatch):
    config = configuration(OTHER_MODES)
    detector = ExportableDetector(random_model(config), config).eval()
    content = to_onnx(detector, 20, describe_detector(config))
    comparison = exporter.compare_with_pytorch(content, detector, list(random_batches(RESOLUTION)))
    assert (comparison.objects, comparison.differing) == (8 * 7, 0)
    described = {key: json.loads(value) for key, value in describe_detector(config).items()}
    assert described["class_names"] == ["Van", "Car"] and described["threshold"] == 0.125
    assert described["map_to_image"] == "exact" and described["meanshape"] is True
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ValueError, match=r"needs PyTorch >= 2\.6, this is 2\.5\.1"):
        to_onnx(detector, 18, {})


def test_the_file_contains_what_a_runner_needs(exported):
    import onnxruntime

    model = onnxruntime.InferenceSession(str(exported.onnx), providers=["CPUExecutionProvider"])
    metadata = {name: json.loads(text) for name, text in model.get_modelmeta().custom_metadata_map.items()}
    assert metadata == {
        "format": FORMAT,
        "class_names": ["Pedestrian", "Car", "Cyclist"],
        "resolution": [96, 64],
        "meanshape": False,
        "backbone": "dla34_narrow",
        "threshold": 0.2,
        "topk": 50,
        "map_to_image": "auto",
    }
    assert run_onnx.FORMAT == FORMAT
    assert [t.name for t in model.get_inputs()] == list(INPUTS)
    assert [t.shape for t in model.get_inputs()] == [["batch", 64, 96, 3], ["batch", 3, 4], ["batch", 2]]
    assert [t.name for t in model.get_outputs()] == list(OUTPUTS)
    assert "8 images in batches of 1 to 3" in exported.log and "opset 18: " in exported.log
    assert exported.log.count("largest relative difference") == len(LEAST_SCALE)
    assert "400 of 400 objects agree" in exported.log


def test_only_what_is_needed_is_in_the_file(exported):
    import onnx

    content = onnx.load(exported.onnx)
    assert [(o.domain, o.version) for o in content.opset_import] == [("", 18)]
    names = [tensor.name for tensor in content.graph.initializer]
    assert any("heading" in name for name in names)
    assert not any("obj_depth" in name or "backbone.fc" in name or ".bn" in name for name in names)
    unused = ("obj_depth", "backbone.fc", *(f"backbone.{name}" for name in exported.model.backbone.unused_parameters()))
    used = sum(v.numel() for k, v in exported.model.named_parameters() if not k.startswith(unused))
    assert exported.onnx.stat().st_size < 4 * used + 100_000
    assert str(PROJECT).encode() not in exported.onnx.read_bytes()


@pytest.fixture
def refused(exported, tmp_path, capsys, monkeypatch):
    """Calls the exporter, which must refuse with one line and leave nothing; returns the line."""
    monkeypatch.setattr(exporter, "to_onnx", lambda *_: exported.onnx.read_bytes())

    def call(*changes, status=2, checkpoint=exported.checkpoint):
        out = tmp_path / "new" / "m.onnx"
        assert export_onnx.main(["--checkpoint", str(checkpoint), "--out", str(out), *changes]) == status
        assert not out.parent.exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def test_a_file_that_computes_something_else_is_not_left_behind(refused, exported, tmp_path):
    other = random_model(exported.config, seed=1)
    torch.save({"model_state": other.state_dict(), "config": dump_config(exported.config)}, tmp_path / "other.pth")
    line = refused(status=1, checkpoint=tmp_path / "other.pth")
    assert "m.onnx is not written: " in line and "of 400 objects differ from PyTorch" in line and "not found" in line
    line = refused("--set", "tester.map_to_image=official", status=1)
    assert "m.onnx is not written: 400 of 400 objects differ" in line and "(bbox 400" in line


def test_what_cannot_be_exported(refused, exported, tmp_path, monkeypatch):
    assert "nothing.pth: no such checkpoint" in refused(checkpoint=tmp_path / "nothing.pth")
    official = tmp_path / "official.pth"
    torch.save({"epoch": 1, "model_state": exported.model.state_dict()}, official)
    assert "official.pth: it has no config" in (line := refused(checkpoint=official)) and "--config" in line
    torch.save({"model_state": {}, "config": {"dataset": {"reso": 1}}}, tmp_path / "strange.pth")
    assert "strange.pth: its config: unknown key dataset.reso" in refused(checkpoint=tmp_path / "strange.pth")
    assert "dataset.class_names" in (line := refused("--set", "dataset.class_names=[Car]"))
    assert "its config" not in line  # the error is in --set
    assert "--opset must be in 18 .." in refused("--opset", "17")
    assert "--opset must be in 18 .." in refused("--opset", "1000")
    assert "no.png: no such image" in refused("--images", str(tmp_path / "no.png"))
    assert "must end in .onnx" in refused("--out", str(tmp_path / "m.pb"))
    monkeypatch.setattr(exporter, "to_onnx", lambda *_: b"no model")
    assert "cannot run the exported file" in refused()


@pytest.mark.usefixtures("refused")  # which replaces the slow part of the exporter
def test_an_official_checkpoint_and_an_image_to_compare(exported, tmp_path, capsys):
    torch.save({"epoch": 1, "model_state": exported.model.state_dict()}, tmp_path / "official.pth")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(dump_config(exported.config)))
    cv2.imwrite(str(tmp_path / "a.png"), np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    command = ["--checkpoint", str(tmp_path / "official.pth"), "--config", str(tmp_path / "c.yaml")]
    command += ["--out", str(tmp_path / "m.onnx"), "--images", str(tmp_path / "a.png")]
    assert export_onnx.main(command) == 0
    assert "9 images" in capsys.readouterr().out
    before = (tmp_path / "m.onnx").stat()
    assert export_onnx.main(command) == 2
    assert "m.onnx exists already; --overwrite" in capsys.readouterr().err
    assert (tmp_path / "m.onnx").stat() == before
    assert export_onnx.main([*command, "--overwrite"]) == 0
    assert (tmp_path / "m.onnx").stat().st_mtime_ns > before.st_mtime_ns


@pytest.mark.parametrize("name", PACKAGES)
def test_missing_packages_are_named(name, tmp_path, capsys, monkeypatch):
    for each in PACKAGES:
        monkeypatch.setitem(sys.modules, each, object() if each != name else None)
    assert export_onnx.main(["--checkpoint", str(tmp_path / "a.pth"), "--out", str(tmp_path / "m.onnx")]) == 2
    assert f"exporting needs {name}: pip install onnx onnxscript onnxruntime" in capsys.readouterr().err


def sides():
    """Outputs of a file and of PyTorch for one image with 100 objects."""
    rng = np.random.default_rng(0)
    expected = {"heatmap": np.linspace(0.9, 0.1, 100), "cell": np.arange(100) * 7, "class_index": np.arange(100) % 2}
    expected["score"] = expected["heatmap"] / 2
    for name, size in (("bbox", (4,)), ("dimensions", (3,)), ("location", (3,)), ("rotation_y", ()), ("alpha", ())):
        expected[name] = rng.uniform(-3, 3, (100, *size))
    return {name: value.copy() for name, value in expected.items()}, expected


def compare(exported, expected):
    comparison = Comparison()
    comparison.add(exported, expected)
    comparison.require_agreement("m.onnx")
    return comparison


def test_equal_outputs_agree_in_any_order():
    exported, expected = sides()
    found = compare({name: value[::-1] for name, value in exported.items()}, expected)
    assert found.largest == dict.fromkeys(LEAST_SCALE, 0.0) and (found.differing, found.objects) == (0, 100)
    exported["rotation_y"] += 2 * math.pi
    assert compare(exported, expected).largest["rotation_y"] < 1e-6
    for side in (exported, expected):
        side["heatmap"][60:] = 0  # slots without a peak
    exported["cell"][60:] = 3
    assert compare(exported, expected).objects == 60
    for side in (exported, expected):
        side["heatmap"][:] = np.nan
    with pytest.raises(FloatingPointError, match="no peak to compare"):
        compare(exported, expected)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("score", 0.1, "score 3"),
        ("location", float("nan"), "location 3"),
        ("alpha", 9, "alpha 3"),
        ("cell", 10**6, "not found 3"),
    ],
)
def test_a_few_objects_may_differ_but_not_more(name, value, line):
    exported, expected = sides()
    exported[name][:2] = value
    found = compare(exported, expected)
    assert found.differing == 2 and max(found.largest.values()) == 0
    exported[name][2] = value
    with pytest.raises(FloatingPointError, match=rf"m\.onnx: 3 of 100 objects differ .*\({line}\); 2% may"):
        compare(exported, expected)


@pytest.mark.parametrize("size", [(1242, 375), (640, 480), (31, 90), (1920, 300)])
def test_the_runner_warps_images_as_the_data_set_does(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for resolution in ((1280, 384), RESOLUTION):
        expected = Augmentation.identity(size).image(image, resolution)
        np.testing.assert_array_equal(run_onnx.to_network_input(image[:, :, ::-1].copy(), resolution), expected)


@pytest.fixture
def run(exported, tiny_kitti, tmp_path):
    """Calls the runner on the test split with changed options; returns its status."""
    data = tiny_kitti / "testing"
    usual = {"--model": exported.onnx, "--input": data / "image_2", "--calib": data / "calib", "--out": tmp_path / "o"}
    return lambda changes, *more: run_onnx.main([*(str(w) for pair in (usual | changes).items() for w in pair), *more])


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_the_runner_writes_the_files_of_the_evaluation(run, exported, tiny_kitti, tmp_path, monkeypatch, batch_size):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(dump_config(exported.config)))
    changes = [f"general.dataroot={tiny_kitti}", f"tester.checkpoint={exported.checkpoint}", "tester.threshold=0.09"]
    changes += ["trainer.gpu_ids=[]", "general.exp_name=x", "tester.split=test"]
    assert train_val.main(["--config", "x.yaml", "-e", "--set", *changes]) == 0
    (theirs,) = (tmp_path / "outputs/x/results").glob("*/test/data")
    assert run({"--threshold": "0.09", "--batch-size": batch_size}) == 0
    files = [sorted(folder.iterdir()) for folder in (tmp_path / "o", theirs)]
    assert [[p.name for p in paths] for paths in files] == [["000000.txt", "000001.txt"]] * 2
    mine, expected = ([line for p in paths for line in p.read_text().splitlines()] for paths in files)
    assert len(mine) == len(expected) > 10
    assert [line.split()[:3] for line in mine] == [line.split()[:3] for line in expected]
    a, b = (np.array([[float(v) for v in line.split()[3:]] for line in lines]) for lines in (mine, expected))
    assert np.abs(a - b).max() < 0.0101 and (a == b).mean() > 0.98, "rounding may turn a last decimal"


def test_the_runner_needs_neither_torch_nor_this_project(exported, tiny_kitti, tmp_path):
    """Copied to another place, in an interpreter without the packages that it must not need."""
    shutil.copy(PROJECT / "tools" / "run_onnx.py", tmp_path / "copied.py")
    code = (
        "import runpy, sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'torchvision', 'lib', 'tools', 'yaml', 'tqdm', 'numba', 'onnx'):\n"
        "            raise ImportError('not here: ' + name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "sys.argv[0] = 'copied.py'\n"
        "runpy.run_path('copied.py', run_name='__main__')\n"
    )
    arguments = ["--model", exported.onnx, "--input", tiny_kitti / "testing/image_2/000001.png", "--out", "o"]
    arguments += ["--threshold", "0", "--p2", *CALIB.split()[1:]]
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "50 objects" in done.stdout and len((tmp_path / "o/000001.txt").read_text().splitlines()) == 50


def test_what_the_runner_refuses(run, exported, tiny_kitti, tmp_path, capsys, monkeypatch):
    import onnx

    def runner(changes, *more):
        assert run(changes, *more) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "o").exists()
        return line

    data = tiny_kitti / "testing"
    assert "no.onnx: no such model" in runner({"--model": tmp_path / "no.onnx"})
    (tmp_path / "text.onnx").write_text("hello")
    assert "text.onnx: not an ONNX file" in runner({"--model": tmp_path / "text.onnx"})
    foreign, path = onnx.load(exported.onnx), tmp_path / "foreign.onnx"
    for text in ('"another, 2"', "no JSON"):
        del foreign.metadata_props[:]
        foreign.metadata_props.add(key="format", value=text)
        onnx.save(foreign, path)
        assert "foreign.onnx: not written by tools/export_onnx.py" in runner({"--model": path})
    assert "nothing: no such image or folder" in runner({"--input": tmp_path / "nothing"})
    assert "no images" in runner({"--input": data / "calib"})
    assert "no such calibration file, for 000000.png" in runner({"--calib": tmp_path / "nothing.txt"})
    (data / "calib/000001.txt").unlink()
    assert "000001.txt: no such calibration file, for 000001.png" in runner({})
    for text, reason in [
        ("P0: 1\n", ": no line 'P2: ...'"),
        ("\nP2: 1 2 3\n", ", line 2: P2 must have 12 numbers (9 without translation), got '1 2 3'"),
        ("P2: -1 " + "1 " * 11, ", line 1: P2 must be finite with positive focal lengths"),
    ]:
        (data / "calib/000001.txt").write_text(text)
        assert f"calib/000001.txt{reason}" in runner({})
    (data / "calib/000001.txt").write_text(CALIB)
    image = (data / "image_2/000001.png").read_bytes()
    (data / "image_2/000001.png").write_bytes(image[:30])
    assert "000001.png: this image cannot be decoded" in runner({})
    (data / "image_2/000001.png").write_bytes(image)
    (data / "image_2/000001.jpg").write_bytes(image)
    assert "000001.jpg and 000001.png would share one result file" in runner({})
    (data / "image_2/000001.jpg").unlink()
    assert "--batch-size must be >= 1, got 0" in runner({}, "--batch-size", "0")
    for threshold in ("nan", "-1", "1.5"):
        assert "--threshold must be in [0, 1]" in runner({}, "--threshold", threshold)
    (tmp_path / "file").write_text("")
    assert "must be a folder" in runner({"--out": tmp_path / "file"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is missing: pip install onnxruntime" in runner({})


def test_the_runner_warns_of_images_of_another_shape(capsys):
    official, exact = (run_onnx.Model(None, ["Car"], (1280, 384), 0.2, rows) for rows in (True, False))
    wide, kitti = np.zeros((1080, 1920, 3), np.uint8), np.zeros((370, 1224, 3), np.uint8)
    official.warn_of_shape(Path("a.png"), kitti)
    exact.warn_of_shape(Path("a.png"), np.zeros((375, 3000, 3), np.uint8))
    assert not capsys.readouterr().out
    exact.warn_of_shape(Path("a.png"), wide)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: a.png: 47 % of its rows lie outside the network input")
    official.warn_of_shape(Path("a.png"), wide)
    assert "a.png: 1920 x 1080 has another shape than the model's 1280 x 384" in capsys.readouterr().out


def test_the_runner_keeps_results(run, exported, tiny_kitti, tmp_path, capsys):
    """With one calibration file for all images; the model's own threshold is the default."""
    path = tmp_path / "o/000000.txt"
    path.parent.mkdir()
    path.write_text("precious")
    options = {"--calib": tiny_kitti / "testing/calib/000000.txt"}
    assert run(options) == 2 and "000000.txt exists already; --overwrite" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert run(options, "--overwrite") == 0
    kept = path.read_text()
    assert run_onnx.load_model(exported.onnx).threshold == exported.config.tester.threshold == 0.2
    assert run({"--threshold": "0.2"}, "--overwrite") == 0
    assert path.read_text() == kept and 0 < kept.count("\n") < 50


@pytest.mark.slow
def test_the_whole_network_at_full_size(needed, tmp_path, capsys):
    config = parse_config({"model": {"backbone": "dla34", "pretrained": False}, "dataset": {"meanshape": True}})
    model = random_model(config)
    torch.save({"model_state": model.state_dict(), "config": dump_config(config)}, tmp_path / "x.pth")
    assert export_onnx.main(["--checkpoint", str(tmp_path / "x.pth"), "--out", str(tmp_path / "m.onnx")]) == 0
    assert "of 400 objects agree" in capsys.readouterr().out
    assert 70e6 < (tmp_path / "m.onnx").stat().st_size < 90e6


def test_a_release_detects_the_same_and_has_no_training_state(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = configuration({})
    model = random_model(config)
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    save_checkpoint(Path("whole.pth"), model, optimizer, 7, dump_config(config), 12.5, {"epoch": 7}, focal_net=55.0)
    command = ["--checkpoint", "whole.pth", "--release", "small.pth"]
    assert export_onnx.main(command) == 0
    whole, small = read_checkpoint(Path("whole.pth")), read_checkpoint(Path("small.pth"))
    assert small.keys() == {"epoch", "model_state", "config", "best", "camera", "version"}
    assert all(torch.equal(small["model_state"][name], value) for name, value in whole["model_state"].items())
    assert Path("small.pth").stat().st_size < 0.4 * Path("whole.pth").stat().st_size
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    camera = np.array([[55.0, 0, 48, 0], [0, 55, 32, 0], [0, 0, 1, 0]])
    detectors = [replace(load_detector(name, device="cpu"), threshold=0.0) for name in ("whole.pth", "small.pth")]
    assert detectors[0](image, camera) == detectors[1](image, camera) != []
    torch.save({key: whole[key] for key in ("epoch", "model_state", "optimizer_state")}, "official.pth")
    Path("x.yaml").write_text(yaml.safe_dump(dump_config(config)))
    assert export_onnx.main(["--checkpoint", "official.pth", "--config", "x.yaml", "--release", "named.pth"]) == 0
    assert read_checkpoint(Path("named.pth"))["config"]["dataset"] == dump_config(config)["dataset"]
    for arguments, message in (
        (command, "exists already"),
        ([*command[:3], "whole.pth", "--overwrite"], "not the checkpoint itself"),
        ([*command[:3], "small.onnx"], "--release must end in .pth"),
        (["--checkpoint", "official.pth", "--release", "x.pth"], "it has no config"),
    ):
        assert export_onnx.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert read_checkpoint(Path("whole.pth")).keys() == whole.keys() and not Path("x.pth").exists()
