"""Networks of timm as backbones: trained, exported and used for prediction; weights; names that do not fit."""

import sys

import pytest
import torch
import yaml

from lib.config import Config, Model
from lib.losses import Criterion
from lib.models import build_model
from lib.models.folding import fold_batch_norm
from lib.models.pretrained import IMAGE_MEAN, IMAGE_STD
from lib.models.timm_backbone import build_timm
from tests.test_optimization import CONFIG, make_batch
from tools import export_onnx, predict, train_val

timm = pytest.importorskip("timm")


def with_backbone(name):
    return Config(general=CONFIG.general, model=Model(backbone=name))


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (64, 128, 256, 512)), ("convnext_atto", (40, 80, 160, 320))]
)
def test_every_parameter_is_trained_and_folding_changes_nothing(name, channels):
    torch.manual_seed(0)
    model = build_model(with_backbone(f"timm/{name}")).train()
    assert model.backbone.channels == channels and model.neck.out_channels == channels[0]
    images, targets, _ = make_batch(2)
    losses = Criterion(CONFIG.general)(model(images, targets["indices"]), targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        plain, folded = model.eval()(images), fold_batch_norm(model)(images)
    torch.testing.assert_close(folded["features"], plain["features"], rtol=1e-4, atol=1e-4)


def test_images_are_normalised_as_the_network_was_trained():
    """resnetv2_50 was trained with a mean and a standard deviation of 0.5."""
    images = torch.rand(1, 3, 64, 96)
    backbone = build_timm("resnetv2_50").eval()
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        expected = backbone.net((images - 0.5) / 0.5)
        found = backbone((images - mean) / std)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_weights_from_a_file_are_those_of_the_whole_network(tmp_path, name):
    torch.manual_seed(1)
    whole = timm.create_model(name, num_classes=7 if name == "resnet18" else 1000).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    if name == "resnet18":
        with pytest.raises(ValueError, match=r"w\.pth: not the weights of timm/resnet18: fc\.weight is missing"):
            build_timm(name, str(tmp_path / "w.pth"))
        return
    backbone, images = build_timm(name, str(tmp_path / "w.pth")).eval(), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images)[-1], whole.forward_intermediates(images)[1][-1])


def test_what_does_not_fit_is_named(monkeypatch, tmp_path):
    for name, said in (
        ("resnet19", "timm has no network 'resnet19'; did you mean timm/resnet1"),
        (
            "vit_tiny_patch16_224",
            r"cannot be used: its feature maps have strides \[16, .*, needed are \[4, 8, 16, 32\]",
        ),
        ("swin_tiny_patch4_window7_224", r"cannot be used: Input height \(64\) doesn't match"),
        ("resnet18.nobody", "cannot be used: Invalid pretrained tag"),
    ):
        with pytest.raises(ValueError, match=said):
            build_model(with_backbone(f"timm/{name}"))
    torch.save(timm.create_model("convnext_atto").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: not the weights of timm/resnet18: conv1\.weight is missing"):
        build_timm("resnet18", str(tmp_path / "w.pth"))
    create = timm.create_model

    def offline(name, pretrained=False, **options):
        if pretrained:
            raise FileNotFoundError("no network")
        return create(name, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(FileNotFoundError, match=r"could not download weights of resnet18 \(no network\); name a file"):
        build_timm("resnet18", True)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="timm/resnet18 needs the package timm: pip install timm"):
        build_timm("resnet18")


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_a_whole_run_with_export_and_prediction(tiny_kitti, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = {
        "general": {"exp_name": "t", "dataroot": str(tiny_kitti)},
        "dataset": {"batch_size": 4, "num_workers": 0, "resolution": [96, 64]},
        "model": {"backbone": f"timm/{name}", "pretrained": False},
        "trainer": {"max_epoch": 1, "report": False},
        "tester": {"threshold": 0.0, "images": 0, "map_to_image": "exact"},
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(config))
    assert train_val.main(["--config", "t.yaml"]) == 0
    checkpoint = "outputs/t/checkpoints/checkpoint_epoch_1.pth"
    images, calib = (str(tiny_kitti / "training" / name) for name in ("image_2", "calib"))
    assert predict.main(["--checkpoint", checkpoint, "--input", images, "--calib", calib, "--out", "found"]) == 0
    assert len(list((tmp_path / "found").rglob("*.txt"))) == 4
    pytest.importorskip("onnxruntime")
    assert export_onnx.main(["--checkpoint", checkpoint, "--out", "t.onnx"]) == 0
