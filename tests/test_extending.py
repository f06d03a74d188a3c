"""The examples of docs/extending.md, applied to a copy of lib and run."""

import importlib
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from tests.conftest import CALIB, LABELS, PROJECT

PAGE = (PROJECT / "docs" / "extending.md").read_text()
BLOCK = re.compile(r"```python\n# (?:new file: (\S+)|(\S+), (after|instead of): ([^\n]*))\n(.*?)```", re.S)


def apply_examples(section, package):
    """Apply the blocks of a section to ``package``, a copy of lib."""
    (text,) = [part for part in PAGE.split("\n## ") if part.startswith(section)]
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```python") > 0
    for new_file, edited_file, place, anchor, code in blocks:
        path = package / (new_file or edited_file).removeprefix("lib/")
        if new_file:
            assert not path.exists()
            path.write_text(code)
            continue
        lines = path.read_text().splitlines()
        (number,) = [i for i, line in enumerate(lines) if anchor in line]
        indent = " " * (len(lines[number]) - len(lines[number].lstrip()))
        added = [indent + line for line in code.splitlines()]
        lines[number : number + 1] = added if place == "instead of" else [lines[number], *added]
        path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def extended(tmp_path, monkeypatch):
    """Applies a section's blocks; returns a function that imports a module of the result by its name below lib."""

    def extend(section):
        name = f"extended_{section.split()[-1]}"  # imports inside lib are relative
        shutil.copytree(PROJECT / "lib", tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        apply_examples(section, tmp_path / name)
        monkeypatch.syspath_prepend(tmp_path)
        return lambda module: importlib.import_module(f"{name}.{module}")

    yield extend
    for name in [name for name in sys.modules if name.startswith("extended_")]:
        del sys.modules[name]


def train_and_decode(load, raw):
    """One training step on random images and two encoded frames, then detections of the same model.

    Returns the model, its losses and the detections of the first image.
    """
    config = load("config").parse_config({"dataset": {"resolution": [320, 96]}} | raw)
    torch.manual_seed(0)
    model = load("models").build_model(config, config.model.pretrained)
    calibration = load("structures").Calibration(np.array(CALIB.split()[1:], dtype=float))
    labels = [[load("structures").Object3d.from_line(line) for line in LABELS[key]] for key in ("000000", "000003")]
    whole = load("datasets.augmentation").Augmentation.identity((1242, 375))
    encode = load("datasets.targets").encode_targets
    frames = [encode(objects, calibration, whole, config.dataset) for objects in labels]
    targets = {name: torch.from_numpy(np.stack([frame[name] for frame in frames])) for name in frames[0]}
    images = torch.randint(0, 256, (2, 3, 96, 320), dtype=torch.uint8)
    losses = load("losses").Criterion(config.general, config.losses)(model(images, targets["indices"]), targets)
    torch.stack(list(losses.values())).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name
    with torch.no_grad():
        model.size_3d[2].bias.fill_(1.6)  # detections with negative sizes are left out
        outputs = model.eval()(images)
    postprocess = load("postprocess")
    settings = postprocess.DecodeSettings(config.dataset.class_names, (320, 96), threshold=0.0)
    info = load("structures").FrameInfo("000000", (1242, 375), calibration)
    return model, losses, postprocess.decode_detections(outputs, [info, info], settings)[0]


def test_a_backbone(extended, tmp_path):
    torch.manual_seed(3)
    load = extended("A backbone")
    weights = load("models.resnet").ResNet18().net.state_dict()
    torch.save(weights, tmp_path / "resnet18.pth")
    raw = {"model": {"backbone": "resnet18", "pretrained": str(tmp_path / "resnet18.pth")}}
    model, _, detections = train_and_decode(load, raw)
    assert torch.equal(model.backbone.net.layer4[1].conv2.weight, weights["layer4.1.conv2.weight"])
    unused = {name for name, p in model.named_parameters() if p.grad is None}
    assert unused == {"backbone.net.fc.weight", "backbone.net.fc.bias"}
    assert len(detections) == 50
    images = torch.rand(1, 3, 96, 320)
    with torch.no_grad():
        plain, folded = model(images), load("models.folding").fold_batch_norm(model)(images)
    assert torch.allclose(plain["features"], folded["features"], atol=1e-4)


def test_a_loss(extended):
    load = extended("A loss")
    narrow = {"model": {"backbone": "dla34_narrow", "pretrained": False}}
    _, losses, _ = train_and_decode(load, narrow | {"losses": {"inverse_depth": 2.0}})
    assert list(losses)[-1] == "inverse_depth" and losses["inverse_depth"].item() > 0
    _, lighter, _ = train_and_decode(load, narrow)
    assert lighter["inverse_depth"].item() == pytest.approx(losses["inverse_depth"].item() / 4)


def test_a_head(extended):
    load = extended("A head")
    model, losses, detections = train_and_decode(load, {"model": {"backbone": "dla34_narrow", "pretrained": False}})
    assert losses["truncation"].item() > 0 and model.truncation[2].weight.grad.abs().max() > 0
    assert all(0 < obj.truncated < 1 for obj in detections) and len(detections) == 50
    assert list(model.state_dict())[-1] == "truncation.2.bias"
