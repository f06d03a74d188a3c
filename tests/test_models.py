import sys
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lib.config import Config, General, Model, parse_config
from lib.models import BACKBONES, build_model
from lib.models.dla import SIZES, build_dla
from lib.models.folding import fold_batch_norm
from lib.models.pretrained import IMAGE_MEAN, IMAGE_STD, read_weights
from lib.ops.heads import OBJECT_HEADS
from tests.conftest import DATA

DDML = Config(general=General(obj_depth=True))
NARROW = parse_config({"model": {"backbone": "dla34_narrow"}, "general": {"obj_depth": True}})


def rule_for_weights(name, shape):
    """The rule of shared/conformance/README.md."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(normal)
    if name.endswith(("running_mean", "bias")):
        return 0.1 * normal
    if len(shape) == 1:
        return 1 + 0.1 * normal
    return normal * np.sqrt(2 / np.prod(shape[1:]))


def fill_by_rule(module):
    """Give a module the weights of the rule."""
    state = {
        name: torch.tensor(0)
        if name.endswith("num_batches_tracked")
        else torch.from_numpy(rule_for_weights(name, tuple(value.shape)).astype(np.float32))
        for name, value in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module.eval()


@pytest.fixture(scope="module")
def official_model():
    return fill_by_rule(build_model(DDML))


def test_names_shapes_and_order_are_those_of_official_checkpoints():
    own = [(k, "x".join(map(str, v.shape)) or "scalar") for k, v in build_model(DDML).state_dict().items()]
    official = [tuple(line.split("\t")) for line in (DATA / "state_dict.tsv").read_text().splitlines()]
    assert len(official) == 346
    assert own == official


@pytest.mark.parametrize("name", [name for name, size in SIZES.items() if size.sha256_prefix])
def test_features_are_those_of_timm(name):
    timm = pytest.importorskip("timm", reason="timm, an independent DLA with the same names of weights, is not here")
    own = fill_by_rule(build_dla(name))
    theirs = timm.create_model(name, pretrained=False, features_only=True)
    unused = theirs.load_state_dict(own.state_dict(), strict=False)
    assert not unused.missing_keys
    assert all(key.startswith(("fc.", *own.unused_parameters())) for key in unused.unexpected_keys)
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 64, 96)).astype(np.float32))
    with torch.no_grad():
        expected, features = theirs.eval()(images)[-4:], own(images)
    for theirs_map, own_map in zip(expected, features, strict=True):
        assert own_map.std() > 0.1 and (own_map - theirs_map).abs().max() <= 1e-5 * own_map.abs().max()


def test_forward_is_the_official_one(official_model):
    expected = np.load(DATA / "model_forward.npz")
    images = np.random.default_rng(0).standard_normal((1, 3, 96, 320)).astype(np.float32)
    with torch.no_grad():
        outputs = official_model(torch.from_numpy(images), torch.arange(24 * 80)[None])
    assert len(expected) == 9
    for name in expected:
        value = outputs[name].numpy()
        if name in OBJECT_HEADS:  # evaluated at every cell
            value = value[0].T.reshape(expected[name].shape)
        assert np.abs(value - expected[name]).max() <= 1e-4 * np.abs(expected[name]).max(), name


def test_heads_at_cells_equal_dense_heads(official_model):
    torch.manual_seed(0)
    features = torch.randn(2, 64, 12, 20, requires_grad=True)
    indices = torch.randint(0, 240, (2, 50))
    at_cells = official_model.object_heads(features, indices)
    for name in OBJECT_HEADS:
        head = getattr(official_model, name)
        dense = head(features).flatten(2)
        expected = torch.stack([dense[b][:, indices[b]].T for b in range(2)])
        assert torch.allclose(at_cells[name], expected, atol=1e-5)
        weights = torch.randn_like(expected)
        inputs = [features, *head.parameters()]
        fast = torch.autograd.grad((at_cells[name] * weights).sum(), inputs, retain_graph=True)
        slow = torch.autograd.grad((expected * weights).sum(), inputs)
        for a, b in zip(fast, slow, strict=True):
            assert torch.allclose(a, b, atol=1e-5 * float(b.abs().max().clamp(min=1)))


def test_folded_batch_norm_changes_nothing(official_model):
    """Weights whose statistics are far from 0 and 1: the conformance set's."""
    images = torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, 64, 96)).astype(np.float32))
    folded = fold_batch_norm(official_model)
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in official_model.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
    with torch.no_grad():
        indices = torch.arange(50)[None].expand(2, -1)
        plain, fast = official_model(images, indices), folded(images, indices)
    for name, value in plain.items():
        assert (fast[name] - value).abs().max() <= 1e-5 * value.abs().max(), name


def test_neither_loss_costs_anything_at_inference():
    model = build_model(NARROW).eval()
    ran = []
    model.obj_depth.register_forward_hook(lambda *_: ran.append(1))
    with torch.no_grad():
        outputs = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), topk=7)
    assert not ran and "obj_depth" not in outputs
    assert outputs["scores"].shape == outputs["classes"].shape == (1, 7)
    assert outputs["heading"].shape == (1, 7, 24)


def test_bytes_are_normalised_like_floats():
    model = build_model(NARROW).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGE_MEAN, IMAGE_STD))
    with torch.no_grad():
        a, b = model(images)["heatmap"], model((images / 255 - mean) / std)["heatmap"]
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_initial_weights():
    torch.manual_seed(0)
    model = build_model(DDML)
    assert torch.all(model.heatmap[2].bias == -2.19)
    assert model.heatmap[0].weight.std() > 0.01  # torch's default
    for name in (*OBJECT_HEADS, "obj_depth"):
        head = getattr(model, name)
        assert head[0].weight.std().item() == pytest.approx(0.001, rel=0.05)
        assert not head[0].bias.any() and not head[2].bias.any()
    conv = model.backbone.level5.tree2.conv2.weight
    assert conv.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.02)
    up = model.neck.ida_2.up_3
    constant = torch.nn.functional.conv_transpose2d(
        torch.ones(1, 64, 6, 6), up.weight, stride=up.stride, padding=up.padding, groups=64
    )
    margin = up.stride[0]
    assert torch.allclose(constant[..., margin:-margin, margin:-margin], torch.tensor(1.0))


def test_every_backbone_runs_and_has_the_published_number_of_parameters():
    # DLA paper, table 1 (millions, ImageNet classifier included)
    published = {"dla34": 15.7, "dla46_c": 1.3, "dla46x_c": 1.1, "dla60x_c": 1.3, "dla60": 22.0, "dla60x": 17.4}
    published |= {"dla102": 33.2, "dla102x": 26.3, "dla102x2": 41.4, "dla169": 53.4}
    for name, build in BACKBONES.items():
        backbone = build(False).eval()
        with torch.no_grad():
            maps = backbone(torch.zeros(1, 3, 32, 64))
        assert [tuple(m.shape) for m in maps] == [(1, c, 8 >> i, 16 >> i) for i, c in enumerate(backbone.channels)]
        if name in published:
            assert sum(p.numel() for p in backbone.parameters()) / 1e6 == pytest.approx(published[name], abs=0.6)


def test_unknown_backbone():
    with pytest.raises(ValueError, match=r"model\.backbone must be one of .*dla34.*got 'dla35'; did you mean 'dla34'"):
        build_model(Config(model=Model(backbone="dla35")))


# --- ImageNet weights


@pytest.fixture
def weights():
    torch.manual_seed(5)
    return {k: v for k, v in build_dla("dla34").state_dict().items() if not k.endswith("num_batches_tracked")}


def test_weights_from_a_local_file_and_from_timm(tmp_path, weights, monkeypatch):
    torch.save(weights, tmp_path / "w.pth")
    timm = {k: v for k, v in weights.items() if not k.startswith(("level3.project", "level4.project"))}
    save_file(timm, tmp_path / "model.safetensors")
    for name in ("w.pth", "model.safetensors"):
        model = build_model(DDML, str(tmp_path / name))
        assert torch.equal(model.backbone.level5.tree2.conv2.weight, weights["level5.tree2.conv2.weight"])
    with pytest.raises(FileNotFoundError, match=r"model\.pretrained: no file 'none\.pth'"):
        build_model(DDML, "none.pth")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(ValueError, match=r"model\.safetensors: .*pip install safetensors"):
        build_dla("dla34", str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("name", [n for n, size in SIZES.items() if size.sha256_prefix])
def test_weights_without_unused_shortcuts_fit_every_size(tmp_path, name):
    """timm leaves out the projections of trees of several levels: which ones follows from running the network."""
    backbone = build_dla(name)
    sum(m.sum() for m in backbone.train()(torch.rand(1, 3, 32, 64))).backward()
    idle = tuple(n.rsplit(".", 2)[0] + "." for n, p in backbone.named_parameters() if p.grad is None and "fc" not in n)
    assert set(backbone.unused_parameters()) == set(idle)
    state = {k: v for k, v in backbone.state_dict().items() if not k.startswith(idle)}
    torch.save(state, tmp_path / "w.pth")
    build_dla(name, str(tmp_path / "w.pth"))
    torch.save({k: v for k, v in state.items() if k != "level5.root.conv.weight"}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"level5\.root\.conv\.weight is missing, unknown"):
        build_dla(name, str(tmp_path / "w.pth"))


def test_training_in_bfloat16_keeps_the_object_heads_in_float32():
    model = build_model(NARROW).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.zeros(1, 3, 64, 96, dtype=torch.uint8), torch.zeros(1, 50, dtype=torch.int64))
    assert outputs["features"].dtype == torch.bfloat16
    assert all(outputs[name].dtype == torch.float32 for name in OBJECT_HEADS)


def test_cache_is_used_and_the_hash_is_checked(tmp_path, weights, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    path = tmp_path / "checkpoints" / "dla34-ba72cf86.pth"
    path.parent.mkdir()
    torch.save(weights, path)
    with pytest.raises(ValueError, match="SHA-256 does not start with ba72cf86"):
        build_dla("dla34", True)
    path.unlink()
    save_file(weights, tmp_path / "checkpoints" / "dla34.in1k.safetensors")
    backbone = build_dla("dla34", True)
    assert torch.equal(backbone.fc.weight, weights["fc.weight"])


def test_offline_error_says_what_to_do(tmp_path, monkeypatch):
    def offline(url, target, prefix):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError) as error:
        build_dla("dla34", True)
    for word in ("dl.yf.io", "dla34.in1k", "dla34-ba72cf86.pth", "model.pretrained=false", "no network"):
        assert word in str(error.value)


def test_second_source_is_tried(tmp_path, weights, monkeypatch):
    def fetch(url, target, prefix):
        if "dl.yf.io" in url:
            raise OSError("down")
        save_file(weights, target)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    build_dla("dla34", True)
    assert (tmp_path / "checkpoints" / "dla34.in1k.safetensors").is_file()


def test_bad_weights_are_named(tmp_path, weights):
    torch.save({k: v for k, v in weights.items() if "level5" not in k}, tmp_path / "part.pth")
    with pytest.raises(ValueError, match=r"part\.pth: not the weights of dla34: level5"):
        build_dla("dla34", str(tmp_path / "part.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pth: not a readable weights file"):
        read_weights(tmp_path / "text.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        read_weights(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="no ImageNet weights for dla34_narrow"):
        build_dla("dla34_narrow", True)
