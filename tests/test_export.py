"""Export to ONNX: the graph's arithmetic against the real path, the file, the runner, and what each of them refuses."""

import fcntl
import json
import math
import shutil
import subprocess
import sys
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml

from lib.config import Config, dump_config, parse_config
from lib.datasets.augmentation import Augmentation
from lib.export.check import COMPARED, Comparison
from lib.export.onnx_graph import FORMAT, INPUTS, OUTPUTS, ExportableDetector, describe, to_onnx
from lib.models import build_model
from lib.models.centernet3d import OBJECT_HEADS
from lib.ops.feature_map import STRIDE, find_peaks, gather_cells
from lib.postprocess import DECODED, DecodeSettings, decode_detections
from lib.structures import Calibration, FrameInfo
from tests.conftest import CALIB, PROJECT
from tools import export_onnx, run_onnx, train_val

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
    """Random weights that behave: BatchNorm knows its statistics, and objects have sensible sizes and depths."""
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


class PlainNetwork(torch.nn.Module):
    """The outputs of CenterNet3D from the colours of each cell alone: quick to export."""

    def __init__(self, classes):
        super().__init__()
        torch.manual_seed(3)
        self.heatmap = torch.nn.Conv2d(3, classes, 1)
        self.heads = torch.nn.ModuleDict({name: torch.nn.Conv2d(3, size, 1) for name, size in OBJECT_HEADS.items()})

    def forward(self, images, topk):
        features = F.avg_pool2d(images.float() / 32 - 4, STRIDE)
        peaks = find_peaks(self.heatmap(features), topk)
        heads = {name: gather_cells(head(features), peaks.indices) for name, head in self.heads.items()}
        return peaks._asdict() | heads


def settings_of(config, threshold=0.0):
    means = config.dataset.known_sizes if config.dataset.meanshape else None
    official = config.tester.map_to_image == "official"
    return DecodeSettings(config.dataset.class_names, config.dataset.resolution, threshold, means, official)


def frames(count):
    """Images of different sizes from different cameras, some of which have a fourth column."""
    rng = np.random.default_rng(5)
    found = []
    for k in range(count):
        width, height = (int(v) for v in rng.integers((900, 300), (1300, 700)))
        tx, ty = rng.uniform(-50, 50, 2) * (k % 2)
        P2 = [[rng.uniform(600, 800), 0, width / 2 + 9, tx], [0, 700, height / 2 - 7, ty], [0, 0, 1, 0]]
        found.append(FrameInfo(str(k), (width, height), Calibration(np.float32(P2))))
    return found


def cameras(infos):
    """P2 and image_size as the graph takes them."""
    return np.stack([f.calibration.P2 for f in infos]).astype(np.float32), np.float32([f.image_size for f in infos])


def small_images(count, seed=0):
    patches = np.random.default_rng(seed).integers(0, 256, (count, 9, 13, 3), dtype=np.uint8)
    return np.stack([cv2.resize(patch, RESOLUTION, interpolation=cv2.INTER_CUBIC) for patch in patches])


def decoded_by_lib(model, config, images, infos):
    """Network and decoder as the evaluation runs them."""
    with torch.no_grad():
        outputs = model(torch.from_numpy(images).permute(0, 3, 1, 2), topk=config.tester.topk)
    return outputs, decode_detections({name: outputs[name] for name in DECODED}, infos, settings_of(config))


def assert_same_objects(config, values, expected):
    """``values``: the graph's outputs (B, K, ..); ``expected``: decode_detections' objects, negative sizes left out."""
    for b, objects in enumerate(expected):
        kept = (values["dimensions"][b] >= 0).all(axis=1)
        types = [config.dataset.class_names[index] for index in values["class_index"][b][kept]]
        assert types == [obj.type for obj in objects]
        mine = np.concatenate([values[name][b][kept] for name in ("bbox", "dimensions", "location")], axis=1)
        theirs = np.array([[*o.bbox_img, *o.dimensions, *o.location_cam] for o in objects]).reshape(-1, 10)
        np.testing.assert_allclose(mine, theirs, rtol=2e-4, atol=2e-3)
        np.testing.assert_allclose(values["score"][b][kept], [o.score for o in objects], rtol=2e-4)
        mine = np.stack([values[name][b][kept] for name in ("alpha", "rotation_y")])
        theirs = np.array([[o.alpha for o in objects], [o.rotation_y for o in objects]])
        assert np.abs((mine - theirs + 3) % (2 * math.pi) - 3).max(initial=0) < 2e-3
        assert np.abs(mine[1]).max(initial=0) <= math.pi + 1e-6


def run_session(path_or_content, images, infos):
    inputs = dict(zip(INPUTS, (images, *cameras(infos)), strict=True))
    return dict(zip(OUTPUTS, session(path_or_content).run(list(OUTPUTS), inputs), strict=True))


def session(path_or_content):
    import onnxruntime

    return onnxruntime.InferenceSession(path_or_content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("map_to_image", ["official", "exact"])
@pytest.mark.parametrize("meanshape", [False, True])
def test_the_graph_decodes_as_the_decoder_does(map_to_image, meanshape):
    """Drawn outputs: wide angles and depths, and sizes some of which are negative."""
    config = configuration({"dataset": {"meanshape": meanshape}, "tester": {"map_to_image": map_to_image}})
    detector = ExportableDetector(build_model(config), config)
    generator = torch.Generator().manual_seed(2)
    infos = frames(4)

    def draw(channels, scale=1.0, middle=0.0):
        return torch.randn(4, channels, 16, 24, generator=generator) * scale + middle

    peaks = find_peaks(draw(3), 50)
    maps = {"offset_2d": draw(2), "size_2d": draw(2, 8), "depth": draw(2, middle=-2), "offset_3d": draw(2)}
    maps |= {"size_3d": draw(3, 1, -0.5 if meanshape else 1.0), "heading": draw(24, 2)}
    outputs = peaks._asdict() | {name: gather_cells(value, peaks.indices) for name, value in maps.items()}
    values = detector.decode(outputs, *map(torch.from_numpy, cameras(infos)))
    expected = decode_detections(outputs, infos, settings_of(config))
    assert 50 < sum(map(len, expected)) < 200, "some sizes are negative, some are not"
    assert_same_objects(config, {name: value.numpy() for name, value in values.items()}, expected)
    assert torch.equal(values["heatmap"], outputs["scores"]) and torch.equal(values["cell"], outputs["indices"])


@pytest.fixture(scope="module")
def needed():
    """The optional packages."""
    for name in export_onnx.PACKAGES:
        pytest.importorskip(name)


@dataclass(frozen=True)
class Exported:
    """A file, and what it was made from."""

    config: Config
    model: torch.nn.Module
    checkpoint: Path
    onnx: Path
    said: str


@pytest.fixture(scope="module")
def exported(needed, tmp_path_factory):
    """The command, run once for all of xdist's workers: it takes ten seconds."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "exported"
    folder.mkdir(exist_ok=True)
    config = configuration({})
    model = random_model(config)
    result = Exported(config, model, folder / "random.pth", folder / "new" / "m.onnx", "")
    with (folder / "lock").open("a") as file, pytest.MonkeyPatch.context() as patch:
        fcntl.lockf(file, fcntl.LOCK_EX)
        if not result.onnx.is_file():
            state = {"epoch": 0, "model_state": model.state_dict(), "config": dump_config(config)}
            torch.save(state, result.checkpoint)
            said: list[str] = []
            patch.setattr(export_onnx.logger, "info", lambda text, *args: said.append(text % args))
            assert export_onnx.main(["--checkpoint", str(result.checkpoint), "--out", str(result.onnx)]) == 0
            (folder / "said.txt").write_text("\n".join(said))
    return Exported(config, model, result.checkpoint, result.onnx, (folder / "said.txt").read_text())


@pytest.mark.parametrize("count", [1, 3])
def test_the_file_gives_what_network_and_decoder_give(exported, count):
    infos, images, config = frames(count), small_images(count), exported.config
    values = run_session(str(exported.onnx), images, infos)
    outputs, expected = decoded_by_lib(exported.model, config, images, infos)  # BatchNorm as it stands
    assert sum(map(len, expected)) >= 0.9 * count * config.tester.topk
    assert_same_objects(config, values, expected)
    np.testing.assert_allclose(values["heatmap"], outputs["scores"], rtol=1e-4)
    np.testing.assert_array_equal(values["cell"], outputs["indices"])


def test_other_modes_and_classes_come_through_the_file(needed):
    config = configuration(OTHER_MODES)
    model = PlainNetwork(2)
    content = to_onnx(ExportableDetector(model, config).eval(), 20, describe(config))
    for count in (1, 3):
        infos, images = frames(count), small_images(count, 7)
        outputs, expected = decoded_by_lib(model, config, images, infos)
        values = run_session(content, images, infos)
        assert values["bbox"].shape == (count, 7, 4) and outputs["scores"].min() > 0
        assert sum(map(len, expected)) > 0
        assert_same_objects(config, values, expected)
    metadata = session(content).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["class_names"]) == ["Van", "Car"] and json.loads(metadata["threshold"]) == 0.125
    assert json.loads(metadata["map_to_image"]) == "exact" and json.loads(metadata["meanshape"]) is True


def test_the_file_tells_what_a_runner_needs(exported):
    model = session(str(exported.onnx))
    metadata = {name: json.loads(text) for name, text in model.get_modelmeta().custom_metadata_map.items()}
    assert metadata == {
        "format": FORMAT,
        "class_names": ["Pedestrian", "Car", "Cyclist"],
        "resolution": [96, 64],
        "meanshape": False,
        "backbone": "dla34_narrow",
        "threshold": 0.2,
        "topk": 50,
        "map_to_image": "official",
    }
    assert run_onnx.FORMAT == FORMAT
    inputs = [(t.name, t.type, t.shape) for t in model.get_inputs()]
    assert inputs == [
        ("images", "tensor(uint8)", ["batch", 64, 96, 3]),
        ("P2", "tensor(float)", ["batch", 3, 4]),
        ("image_size", "tensor(float)", ["batch", 2]),
    ]
    assert [t.name for t in model.get_outputs()] == list(OUTPUTS)
    assert "8 images in batches of 1 to 3" in exported.said and "opset 18: " in exported.said
    assert all(f"output {name}" in exported.said for name in OUTPUTS)
    assert exported.said.count("largest relative difference") == len(COMPARED)


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
    monkeypatch.setattr(export_onnx, "to_onnx", lambda *_: exported.onnx.read_bytes())

    def call(*changes, status=2, checkpoint=exported.checkpoint):
        out = tmp_path / "new" / "m.onnx"
        assert export_onnx.main(["--checkpoint", str(checkpoint), "--out", str(out), *changes]) == status
        assert not out.parent.exists()
        return capsys.readouterr().err.strip().splitlines()[-1]  # a progress bar may come before

    return call


def test_a_file_that_computes_something_else_is_not_left_behind(refused, exported, tmp_path):
    other = random_model(exported.config, seed=1)
    torch.save({"model_state": other.state_dict(), "config": dump_config(exported.config)}, tmp_path / "other.pth")
    said = refused(status=1, checkpoint=tmp_path / "other.pth")
    assert "m.onnx is not written: " in said and "objects are found by it or by PyTorch alone, of 400" in said
    said = refused("--set", "tester.map_to_image=exact", status=1)
    assert "m.onnx is not written: it differs from PyTorch by" in said and "in bbox" in said


def test_what_cannot_be_exported(refused, exported, tmp_path, monkeypatch):
    assert "nothing.pth: no such checkpoint" in refused(checkpoint=tmp_path / "nothing.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK")
    assert "not a readable checkpoint" in refused(checkpoint=tmp_path / "broken.pth")
    official = tmp_path / "official.pth"
    torch.save({"epoch": 1, "model_state": exported.model.state_dict()}, official)
    assert "official.pth: it has no config" in (said := refused(checkpoint=official)) and "--config" in said
    torch.save({"model_state": {}, "config": {"dataset": {"reso": 1}}}, tmp_path / "strange.pth")
    assert "strange.pth: its config: unknown key dataset.reso" in refused(checkpoint=tmp_path / "strange.pth")
    assert "no.yaml: no such config" in refused("--config", str(tmp_path / "no.yaml"))
    assert "dataset.class_names" in (said := refused("--set", "dataset.class_names=[Car]"))
    assert "its config" not in said  # the fault is in --set
    assert "--opset must be in 18 .." in refused("--opset", "17")
    assert "--opset must be in 18 .." in refused("--opset", "1000")
    assert "no.png: no such image" in refused("--images", str(tmp_path / "no.png"))
    assert "must end in .onnx" in refused("--out", str(tmp_path / "m.pb"))
    monkeypatch.setattr(export_onnx, "to_onnx", lambda *_: b"no model")
    assert "does not take the exported file" in refused()


@pytest.mark.usefixtures("refused")  # the exporter itself has had its turn
def test_an_official_checkpoint_and_a_image_to_check_with(exported, tmp_path, capsys):
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


@pytest.mark.parametrize("name", export_onnx.PACKAGES)
def test_missing_packages_are_named(name, tmp_path, capsys, monkeypatch):
    for each in export_onnx.PACKAGES:
        monkeypatch.setitem(sys.modules, each, object() if each != name else None)
    assert export_onnx.main(["--checkpoint", str(tmp_path / "a.pth"), "--out", str(tmp_path / "m.onnx")]) == 2
    assert f"exporting needs {name}: pip install {name}" in capsys.readouterr().err


def test_an_older_pytorch_is_told_apart(monkeypatch):
    config = configuration({})
    detector = ExportableDetector(build_model(config), config)
    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(ValueError, match=r"needs PyTorch >= 2\.6, this is 2\.5\.1"):
        to_onnx(detector, 18, {})


def sides():
    """One image with six peaks on a heatmap of two classes: outputs of a file and of PyTorch, and the network's."""
    rng = np.random.default_rng(0)
    heatmap = np.full((1, 2, 6, 20), 0.01, np.float32)
    places = [(0, 1, 1), (1, 1, 4), (0, 4, 7), (1, 4, 10), (0, 1, 13), (1, 1, 16)]
    values = [0.9, 0.5, 0.5, 0.3, 0.2, 0.1]
    for (c, y, x), value in zip(places, values, strict=True):
        heatmap[0, c, y, x] = value
    outputs = {"heatmap": torch.from_numpy(heatmap).logit(), "heading": torch.eye(24)[None, :6]}
    decoded = {"heatmap": np.float32([values]), "score": np.float32([values]) / 2}
    decoded["class_index"] = np.array([[c for c, _, _ in places]])
    decoded["cell"] = np.array([[y * 20 + x for _, y, x in places]])
    for name, size in (("bbox", (4,)), ("dimensions", (3,)), ("location", (3,)), ("rotation_y", ()), ("alpha", ())):
        decoded[name] = rng.uniform(-3, 3, (1, 6, *size)).astype(np.float32)
    return {name: value.copy() for name, value in decoded.items()}, decoded, outputs


def test_a_network_without_peaks_is_not_called_equal():
    exported, decoded, outputs = sides()
    for side in (exported, decoded):
        side["heatmap"] = np.full_like(side["heatmap"], np.nan)
    with pytest.raises(FloatingPointError, match="no peak to compare"):
        compared(exported, decoded, outputs | {"heatmap": torch.full((1, 2, 6, 20), np.nan)})


def compared(exported, decoded, outputs):
    comparison = Comparison()
    comparison.add(exported, decoded, outputs)
    comparison.require_equality("m.onnx")
    return comparison


def test_equal_outputs_are_equal_in_any_order_of_equal_values():
    exported, decoded, outputs = sides()
    order = np.array([0, 2, 1, 3, 4, 5])
    found = compared({name: value[:, order] for name, value in exported.items()}, decoded, outputs)
    assert found.differences == dict.fromkeys(COMPARED, 0.0) and found.compared == found.objects == 6
    exported["rotation_y"] += np.float32(2 * math.pi)
    assert compared(exported, decoded, outputs).differences["rotation_y"] < 1e-6


def test_what_rounding_decides_is_no_difference():
    exported, decoded, outputs = sides()
    heatmap = outputs["heatmap"].sigmoid()
    heatmap[0, 0, 1, 14] = 0.2 * (1 + 1e-6)  # the fifth peak's neighbour, which the file takes for the peak
    exported["cell"][0, 4] += 1
    heatmap[0, 0, 4, 1] = 0.1  # as good as the sixth
    exported["class_index"][0, 5], exported["cell"][0, 5] = 0, 4 * 20 + 1
    exported["bbox"][0, 4:] = 7
    outputs["heatmap"] = heatmap.logit()
    outputs["heading"][0, 1, :2] = 1  # two bins are equally good
    exported["alpha"][0, 1] += 0.5
    found = compared(exported, decoded, outputs)
    assert (found.compared, found.objects) == (4, 6) and max(found.differences.values()) == 0
    for name in ("heatmap", "score"):
        exported[name][0, 5] = decoded[name][0, 5] = 0  # no sixth peak: any cell will do
    exported["cell"][0, 5] = 99
    assert compared(exported, decoded, outputs).objects == 5


@pytest.mark.parametrize(
    ("name", "index", "value", "said"),
    [
        ("score", (0, 5), 0.0501, r"differs from PyTorch by 2\.0e-03 in score"),
        ("bbox", (0, 1), 7, "in bbox"),
        ("location", (0, 0, 2), float("nan"), "inf in location"),
        ("alpha", (0, 2), 9, "in alpha"),
        ("cell", (0, 2), 77, "2 objects are found by it or by PyTorch alone"),
        ("cell", (0, 2), 10**6, "2 objects are found by it or by PyTorch alone"),
        ("class_index", (0, 2), 1, "2 objects are found by it or by PyTorch alone"),
    ],
)
def test_other_outputs_do_not_pass(name, index, value, said):
    exported, decoded, outputs = sides()
    exported[name][index] = value
    with pytest.raises(FloatingPointError, match=said):
        compared(exported, decoded, outputs)


def test_a_network_that_says_the_same_everywhere_is_not_called_equal():
    exported, decoded, outputs = sides()
    outputs["heatmap"][:] = 20
    exported["heatmap"][:] = decoded["heatmap"][:] = outputs["heatmap"].sigmoid().max().item()
    exported["cell"] += 1
    with pytest.raises(FloatingPointError, match="only 0 of 6 objects can be compared"):
        compared(exported, decoded, outputs)


@pytest.mark.parametrize("size", [(1242, 375), (640, 480), (31, 90), (1920, 300)])
def test_the_runner_warps_images_as_the_data_set_does(size):
    image = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for resolution in ((1280, 384), RESOLUTION):
        expected = Augmentation.identity(size).image(image, resolution)
        np.testing.assert_array_equal(run_onnx.to_network_input(image[:, :, ::-1].copy(), resolution), expected)


@pytest.mark.parametrize("batch_size", ["1", "3"])
def test_the_runner_writes_the_files_of_the_evaluation(exported, tiny_kitti, tmp_path, monkeypatch, batch_size):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(dump_config(exported.config)))
    changes = [f"general.dataroot={tiny_kitti}", f"tester.checkpoint={exported.checkpoint}", "tester.threshold=0.09"]
    changes += ["trainer.gpu_ids=[]", "general.exp_name=x", "tester.split=test"]
    assert train_val.main(["--config", "x.yaml", "-e", "--set", *changes]) == 0
    (theirs,) = (tmp_path / "outputs/x/results").glob("*/test/data")
    data = tiny_kitti / "testing"
    command = ["--model", str(exported.onnx), "--input", str(data / "image_2"), "--calib", str(data / "calib")]
    command += ["--out", str(tmp_path / "mine"), "--threshold", "0.09", "--batch-size", batch_size]
    assert run_onnx.main(command) == 0
    names = sorted(p.name for p in theirs.iterdir())
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == names == ["000000.txt", "000001.txt"]
    mine, expected = (
        list(chain.from_iterable((folder / name).read_text().splitlines() for name in names))
        for folder in (tmp_path / "mine", theirs)
    )
    assert len(mine) == len(expected) > 10
    assert [line.split()[:3] for line in mine] == [line.split()[:3] for line in expected]
    a, b = (np.array([[float(v) for v in line.split()[3:]] for line in lines]) for lines in (mine, expected))
    assert np.abs(a - b).max() < 0.0101 and (a == b).mean() > 0.98, "rounding may turn a last decimal"


def test_the_runner_needs_neither_torch_nor_this_project(exported, tiny_kitti, tmp_path):
    """Copied to another place, in an interpreter that refuses everything that is not to be needed."""
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


def test_the_models_own_threshold_holds(exported, tiny_kitti, tmp_path):
    """And one calibration file will do for all images."""
    data, out = tiny_kitti / "testing", tmp_path / "o"
    command = ["--model", str(exported.onnx), "--input", str(data / "image_2"), "--out", str(out)]
    assert run_onnx.main([*command, "--calib", str(data / "calib/000000.txt")]) == 0
    model = run_onnx.load_model(exported.onnx)
    assert model.threshold == exported.config.tester.threshold == 0.2
    image = cv2.cvtColor(cv2.imread(str(data / "image_2/000000.png")), cv2.COLOR_BGR2RGB)
    images = torch.from_numpy(Augmentation.identity((1242, 375)).image(image, RESOLUTION)).permute(2, 0, 1)[None]
    with torch.no_grad():
        scores = exported.model(images, topk=50)["scores"]
    assert len((out / "000000.txt").read_text().splitlines()) == int((scores >= 0.2).sum()) < 50


@pytest.fixture
def runner(exported, tiny_kitti, tmp_path, capsys):
    """Calls the runner on the test split with changed options, which it must refuse with one line; returns that."""
    data, out = tiny_kitti / "testing", tmp_path / "o"
    usual = {"--model": exported.onnx, "--input": data / "image_2", "--calib": data / "calib", "--out": out}

    def call(changes, *more):
        assert run_onnx.main([*(str(word) for pair in (usual | changes).items() for word in pair), *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not out.exists()
        return line

    return call


def test_what_the_runner_refuses(runner, tiny_kitti, tmp_path, monkeypatch):
    data = tiny_kitti / "testing"
    assert "nothing: no such image or folder" in runner({"--input": tmp_path / "nothing"})
    assert "no images" in runner({"--input": data / "calib"})
    assert "no such calibration file, for 000000.png" in runner({"--calib": tmp_path / "nothing.txt"})
    (data / "calib/000001.txt").unlink()
    assert "000001.txt: no such calibration file, for 000001.png" in runner({})
    for text, reason in [
        ("P0: 1\n", ": no line 'P2: ...'"),
        ("\nP2: 1 2 3\n", ", line 2: P2 must have 12 numbers, got '1 2 3'"),
        ("P2: " + "a " * 12, ", line 1: P2 must have 12 numbers"),
        ("P2: -1 " + "1 " * 11, ", line 1: P2 must be finite with positive focal lengths"),
    ]:
        (data / "calib/000001.txt").write_text(text)
        assert f"calib/000001.txt{reason}" in runner({})
    (data / "calib/000001.txt").write_text(CALIB)
    image = (data / "image_2/000001.png").read_bytes()
    for content in (b"", b"no image", image[:30]):
        (data / "image_2/000001.png").write_bytes(content)
        assert "000001.png: this image cannot be decoded" in runner({})
    (data / "image_2/000001.png").write_bytes(image)
    (data / "image_2/000001.jpg").write_bytes(image)
    assert "000001.jpg and 000001.png would share one result file" in runner({})
    (data / "image_2/000001.jpg").unlink()
    assert "--batch-size must be >= 1, got 0" in runner({}, "--batch-size", "0")
    for threshold in ("nan", "-1", "1.5"):
        assert "--threshold must be in [0, 1]" in runner({}, "--threshold", threshold)
    (data / "image_2/._000000.png").write_bytes(b"of another system")  # which is passed over
    assert "no such calibration file, for 000000.png" in runner({"--calib": tmp_path})
    (tmp_path / "file").write_text("")
    assert "must be a folder" in runner({"--out": tmp_path / "file"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime is missing: pip install onnxruntime" in runner({})


def test_the_runner_doubts_images_of_another_shape():
    official, exact = (run_onnx.Model(None, ["Car"], (1280, 384), 0.2, rows) for rows in (True, False))
    wide, kitti = np.zeros((1080, 1920, 3), np.uint8), np.zeros((370, 1224, 3), np.uint8)
    said = official.doubt(Path("a.png"), wide)
    assert "a.png: 1920 x 1080 is not of the shape 1280 x 384" in said and "tester.map_to_image=exact" in said
    assert not exact.doubt(Path("a.png"), wide) and not official.doubt(Path("a.png"), kitti)


def test_the_runner_refuses_other_models(runner, exported, tmp_path):
    import onnx

    assert "no.onnx: no such model" in runner({"--model": tmp_path / "no.onnx"})
    (tmp_path / "text.onnx").write_text("hello")
    assert "text.onnx: not an ONNX file" in runner({"--model": tmp_path / "text.onnx"})
    foreign, path = onnx.load(exported.onnx), tmp_path / "foreign.onnx"
    for key, text in ((None, None), ("format", json.dumps("another, 2")), ("format", "no JSON")):
        del foreign.metadata_props[:]
        if key:
            foreign.metadata_props.add(key=key, value=text)
        onnx.save(foreign, path)
        assert "foreign.onnx: not written by tools/export_onnx.py" in runner({"--model": path})


def test_the_runner_keeps_results(exported, tiny_kitti, tmp_path, capsys):
    data, out = tiny_kitti / "testing", tmp_path / "o"
    command = ["--model", exported.onnx, "--input", data / "image_2/000000.png", "--calib", data / "calib"]
    command = [*map(str, command), "--out", str(out), "--threshold", "0"]
    out.mkdir()
    (out / "000000.txt").write_text("precious")
    assert run_onnx.main(command) == 2
    assert "000000.txt exists already; --overwrite" in capsys.readouterr().err
    assert (out / "000000.txt").read_text() == "precious"
    assert run_onnx.main([*command, "--overwrite"]) == 0
    assert len((out / "000000.txt").read_text().splitlines()) == 50
    assert [p.name for p in out.iterdir()] == ["000000.txt"]


@pytest.mark.slow
def test_the_whole_network_at_full_size(needed, tmp_path, capsys):
    config = parse_config({"model": {"backbone": "dla34", "pretrained": False}, "dataset": {"meanshape": True}})
    model = random_model(config)
    torch.save({"model_state": model.state_dict(), "config": dump_config(config)}, tmp_path / "x.pth")
    assert export_onnx.main(["--checkpoint", str(tmp_path / "x.pth"), "--out", str(tmp_path / "m.onnx")]) == 0
    said = capsys.readouterr().out
    assert "of 400 objects compared" in said
    assert 70e6 < (tmp_path / "m.onnx").stat().st_size < 90e6
