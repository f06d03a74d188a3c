import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.config import General, Losses
from lib.losses import LOSSES, Criterion
from lib.losses import functional as terms
from lib.losses.quasi_isometric import object_descriptors, quasi_isometric_loss
from lib.ops.feature_map import gather_cells
from lib.ops.heads import OBJECT_HEADS
from tests.conftest import DATA

OFFICIAL_NAMES = {
    "heatmap": "seg",
    "offset_2d": "offset2d",
    "size_2d": "size2d",
    "depth": "depth",
    "offset_3d": "offset3d",
    "size_3d": "size3d",
    "heading": "heading",
    "quasi_isometric": "quasi_isometric",
    "obj_depth": "obj_depth",
}
DENSE = ("heatmap", "features", "obj_depth")
QI_CASES = json.loads((DATA / "quasi_isometric.json").read_text())
BOTH = General(qi=True, obj_depth=True)


def official_batch(number):
    """Recorded maps (leaves with gradients), the criterion's inputs made from them, and the file."""
    recorded = np.load(DATA / f"losses_{number}.npz")
    maps = {k.removeprefix("out_"): torch.from_numpy(recorded[k]) for k in recorded if k.startswith("out_")}
    maps["features"] = torch.from_numpy(recorded["features"])
    maps = {name: value.requires_grad_() for name, value in maps.items()}
    targets = {k.removeprefix("target_"): torch.from_numpy(recorded[k]) for k in recorded if k.startswith("target_")}
    targets |= {name: targets[name].bool() for name in ("mask_2d", "mask_3d")}
    targets["src_size_3d"] = targets["size_3d"]
    size_map = maps["heatmap"].shape[2:]
    targets["obj_depth"] = F.interpolate(targets["obj_depth"][:, None], size_map, mode="bilinear", align_corners=True)
    outputs = {k: v if k in DENSE else gather_cells(v, targets["indices"]) for k, v in maps.items()}
    return maps, outputs, targets, recorded


@pytest.mark.parametrize("number", [1, 2])
def test_terms_and_gradients_are_the_official_ones(number):
    maps, outputs, targets, recorded = official_batch(number)
    losses = Criterion(BOTH)(outputs, targets)
    assert losses.keys() == OFFICIAL_NAMES.keys()
    for name, value in losses.items():
        assert value.item() == pytest.approx(float(recorded[f"loss_{OFFICIAL_NAMES[name]}"]), rel=1e-5), name
    torch.stack(list(losses.values())).sum().backward()
    for name, leaf in maps.items():
        expected = recorded[f"grad_{name}"]
        assert np.abs(expected).max() > 0
        assert np.abs(leaf.grad.numpy() - expected).max() <= 1e-4 * np.abs(expected).max(), name


def test_every_head_has_a_loss():
    assert [name for name in LOSSES if name in OBJECT_HEADS] == list(OBJECT_HEADS)


def test_inputs_are_unchanged_and_the_extra_losses_are_optional():
    _, outputs, targets, _ = official_batch(1)
    before = {k: v.detach().clone() for k, v in (outputs | targets).items()}
    assert set(Criterion(BOTH)(outputs, targets)) - set(Criterion(General())(outputs, targets)) == {
        "quasi_isometric",
        "obj_depth",
    }
    assert all(torch.equal(before[k], v) for k, v in (outputs | targets).items())


def test_weights_scale_the_two_extra_terms():
    _, outputs, targets, _ = official_batch(1)
    plain = Criterion(BOTH)(outputs, targets)
    scaled = Criterion(BOTH, Losses(quasi_isometric=0.5, obj_depth=3.0))(outputs, targets)
    assert scaled["quasi_isometric"].item() == pytest.approx(0.5 * plain["quasi_isometric"].item())
    assert scaled["obj_depth"].item() == pytest.approx(3 * plain["obj_depth"].item())
    assert scaled["depth"] == plain["depth"]


def test_without_objects_every_object_term_is_zero_and_gradients_are_finite():
    maps, outputs, targets, _ = official_batch(1)
    for name in ("mask_2d", "mask_3d", "obj_depth", "heatmap", "size_3d", "src_size_3d", "depth"):
        targets[name] = torch.zeros_like(targets[name])
    losses = Criterion(BOTH)(outputs, targets)
    assert losses["heatmap"].item() > 0
    assert all(value.item() == 0 for name, value in losses.items() if name != "heatmap")
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in maps.values())


def test_what_an_empty_slot_holds_does_not_matter():
    _, outputs, targets, _ = official_batch(1)
    plain = Criterion(BOTH)(outputs, targets)
    empty = ~targets["mask_2d"]
    for name in ("depth", "size_3d", "offset_3d", "heading"):
        outputs[name] = torch.where(empty[..., None], torch.inf, outputs[name])
    again = Criterion(BOTH)(outputs, targets)
    assert all(torch.equal(plain[name], again[name]) for name in plain)


def test_an_empty_slot_brings_no_nan_into_the_gradient():
    _, outputs, targets, _ = official_batch(1)
    empty = ~targets["mask_2d"]
    for name, value in (("depth", -200.0), ("heading", 1e30), ("size_3d", -1e30)):
        outputs[name] = torch.where(empty[..., None], value, outputs[name]).detach().requires_grad_()
    losses = Criterion(General())(outputs, targets)
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(outputs[name].grad).all() for name in ("depth", "heading", "size_3d"))


@pytest.mark.parametrize("form", ["official", "corrected"])
@pytest.mark.parametrize("temperature", [10.0, 0.05])
def test_far_descriptors_and_small_temperatures_stay_finite(form, temperature):
    rng = np.random.default_rng(3)
    features = torch.tensor(rng.normal(size=(12, 5)) * 1.5, dtype=torch.float32)
    features[5] += 4000.0
    features[6] -= 3000.0
    features.requires_grad_()
    depths, mask = torch.tensor(rng.uniform(3, 20, 12), dtype=torch.float32), torch.ones(12, dtype=torch.bool)
    mask[5] = False  # far and masked; 6 is far and counts
    loss = quasi_isometric_loss(features, depths, mask, temperature=temperature, lower_bound=form)
    loss.backward()
    assert loss.item() > 0 and torch.isfinite(loss)
    assert torch.isfinite(features.grad).all() and features.grad.abs().max() > 0


def test_quasi_isometric_loss_refuses_other_shapes_and_values():
    f, z, mask = torch.rand(6, 8), torch.arange(6.0), torch.ones(6, dtype=torch.bool)
    quasi_isometric_loss(f, z, mask)
    for arguments, found in (
        ((f, z[:, None], mask), "depths (6, 1)"),
        ((f, z, mask[:, None]), "mask (6, 1)"),
        ((f, z[:5], mask), "depths (5,)"),
        ((f, z, mask[:1]), "mask (1,)"),
        ((f[None], z, mask), "descriptors (1, 6, 8)"),
    ):
        with pytest.raises(ValueError, match="expected descriptors") as error:
            quasi_isometric_loss(*arguments)
        assert found in str(error.value)
    with pytest.raises(ValueError, match="mask must be of type bool"):
        quasi_isometric_loss(f, z, mask.float())
    with pytest.raises(ValueError, match="lower_bound must be one of official, corrected, got 'none'"):
        quasi_isometric_loss(f, z, mask, lower_bound="none")


def test_terms_do_not_broadcast():
    a, mask = torch.rand(2, 3, 4), torch.ones(2, 3, dtype=torch.bool)
    depth = a[..., :1]
    calls = [
        lambda: terms.l1_loss(a, a[..., :1], mask),
        lambda: terms.l1_loss(a, a, mask[:1]),
        lambda: terms.laplacian_depth_loss(depth, depth, depth[..., 0], mask),
        lambda: terms.laplacian_depth_loss(depth, depth[:1], depth, mask),
        lambda: terms.dimension_aware_l1_loss(a, a, a[..., :1], mask),
        lambda: terms.heatmap_focal_loss(a[None], a),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"(must have the same shape: .*|bool mask )\(2, 3"):
            call()


def test_heatmap_loss_by_hand():
    logits = torch.zeros(1, 1, 1, 3)
    target = torch.tensor([[[[1.0, 0.5, 0.0]]]])
    # p = 0.5 everywhere: centre ln 2 / 4; the others ln 2 / 4 * (1 - t)^4
    expected = np.log(2) / 4 * (1 + 0.5**4 + 1)
    assert terms.heatmap_focal_loss(logits, target).item() == pytest.approx(expected, rel=1e-6)


def test_perfect_sizes_cost_nothing():
    size = torch.rand(1, 4, 3) + 1
    mask = torch.tensor([[True, True, False, False]])
    prediction = size.clone().requires_grad_()
    loss = terms.dimension_aware_l1_loss(prediction, size, size, mask)
    loss.backward()
    assert loss.item() == 0 and torch.isfinite(prediction.grad).all()


@pytest.mark.parametrize("case", QI_CASES, ids=lambda c: c["name"])
def test_quasi_isometric_cases_are_the_official_ones(case):
    features = torch.tensor(case["features"], requires_grad=True)
    depths = torch.tensor(case["depths"])
    mask = torch.ones(len(depths), dtype=torch.bool)
    loss = quasi_isometric_loss(features, depths, mask, case["K"], case["B"], case["rad"])
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5, abs=1e-7)
    if case["grad"] is not None and not case["grad_has_nan"]:
        expected = np.array(case["grad"])
        scale = max(np.abs(expected).max(), 1e-6)
        assert np.abs(features.grad.numpy() - expected).max() <= 1e-5 * scale
    assert torch.isfinite(features.grad).all()


def loop_reference(features, depths, K, B, rad, T):
    """The official formula of the conformance README, pair by pair."""
    far, close = [], []
    for i in range(len(depths)):
        for j in range(i + 1, len(depths)):
            dz = abs(depths[i] - depths[j])
            if not 1e-12 < dz <= rad:
                continue
            df = np.linalg.norm(features[i] - features[j])
            far += [df - K * dz - B] if df - K * dz - B > 0 else []
            close += [dz / K - df - B] if dz / K - df - B > 0 else []
    n = sum(np.exp(-v / T) for v in close)
    return (0.5 * np.mean([-np.log(np.exp(-u / T) / (np.exp(-u / T) + n)) for u in far]) if far else 0.0), far, close


@pytest.mark.parametrize("seed", range(6))
def test_quasi_isometric_loss_equals_a_loop_over_pairs(seed):
    rng = np.random.default_rng(seed)
    features, depths = rng.normal(size=(12, 5)) * 1.5, rng.uniform(3, 40, 12)
    mask = rng.random(12) < 0.8
    K, B, rad, T = 1.5, 0.5, 12.0, 4.0
    expected, far, close = loop_reference(features[mask], depths[mask], K, B, rad, T)
    assert far and close
    args = (torch.tensor(features), torch.tensor(depths), torch.tensor(mask), K, B, rad, T)
    assert quasi_isometric_loss(*args).item() == pytest.approx(expected, rel=1e-9)
    soft = [np.mean(np.log((1 + np.exp(np.array(v) / T)) / 2)) for v in (far, close)]
    assert quasi_isometric_loss(*args, "corrected").item() == pytest.approx(0.5 * sum(soft), rel=1e-9)


@pytest.mark.parametrize("form", ["official", "corrected"])
def test_the_fitted_scale_is_the_least_squares_one_and_a_constant(form):
    rng = np.random.default_rng(0)
    features, depths = torch.tensor(rng.normal(size=(12, 5)), requires_grad=True), torch.tensor(rng.uniform(3, 40, 12))
    mask = torch.tensor(rng.random(12) < 0.8)
    chosen = [(i, j) for i in range(12) for j in range(i + 1, 12) if mask[i] and mask[j]]
    d_f = np.array([(features[i] - features[j]).norm().item() for i, j in chosen])
    d_z = np.array([(depths[i] - depths[j]).abs().item() for i, j in chosen])
    near = d_z <= 12
    scale = np.linalg.lstsq(d_f[near, None], d_z[near], rcond=None)[0].item()
    constants = (1.5, 0.5, 12.0, 4.0, form)
    fitted = quasi_isometric_loss(features, depths, mask, *constants, fit_scale=True)
    plain = quasi_isometric_loss(scale * features, depths, mask, *constants)
    shorter = quasi_isometric_loss(1e-4 * features, depths, mask, *constants, fit_scale=True)
    assert fitted.item() == pytest.approx(plain.item(), rel=1e-9) == pytest.approx(shorter.item(), rel=1e-9)
    gradients = [torch.autograd.grad(loss, features)[0] for loss in (fitted, plain)]
    assert gradients[0].abs().max() > 0 and torch.allclose(*gradients, rtol=1e-9)
    equal = torch.zeros(12, 5, dtype=torch.float64, requires_grad=True)  # no factor fits
    loss = quasi_isometric_loss(equal, depths, mask, *constants, fit_scale=True)
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, equal)[0]).all()


def test_the_criterion_fits_the_scale_over_all_ranks():
    """The shares of two ranks give the loss of the whole batch; without objects it is 0."""
    _, outputs, targets, _ = official_batch(1)
    general = General(qi=True, qi_fit_scale=True, qi_lower_bound="corrected", T=1.0)
    whole = Criterion(general)(outputs, targets)["quasi_isometric"]
    plain = Criterion(replace(general, qi_fit_scale=False))(outputs, targets)["quasi_isometric"]
    assert whole.item() > 0 and whole.item() != pytest.approx(plain.item(), rel=1e-3)
    rows = []
    for part in (slice(0, 1), slice(1, None)):
        share = ({name: value[part] for name, value in each.items()} for each in (outputs, targets))
        Criterion(general, gather_rows=lambda own: rows.append(own) or own)(*share)
    gathered = Criterion(general, gather_rows=lambda own: torch.cat(rows))(outputs, targets)["quasi_isometric"]
    assert gathered.item() == pytest.approx(whole.item(), rel=1e-6)
    targets["mask_3d"] = torch.zeros_like(targets["mask_3d"])
    assert Criterion(general)(outputs, targets)["quasi_isometric"].item() == 0


def pair_gradient(distance, depth_difference, lower_bound):
    """d(loss) / d(distance) of two objects; the first one moves."""
    f = torch.tensor([[distance, 0.0], [0.0, 0.0]], requires_grad=True)
    depths = torch.tensor([10.0, 10.0 + depth_difference])
    loss = quasi_isometric_loss(f, depths, torch.ones(2, dtype=torch.bool), lower_bound=lower_bound)
    loss.backward()
    return loss.item(), f.grad[0, 0].item()


def test_corrected_bound_pulls_what_is_too_far_and_pushes_what_is_too_close():
    loss, gradient = pair_gradient(9.0, 1.0, "corrected")  # upper bound 2
    assert loss > 0 and gradient > 0
    loss, gradient = pair_gradient(0.5, 6.0, "corrected")  # lower bound 3.5
    assert loss > 0 and gradient < 0
    assert pair_gradient(5.0, 6.0, "corrected") == (0.0, 0.0)
    # the official form is 0 for a single pair
    assert pair_gradient(9.0, 1.0, "official") == pair_gradient(0.5, 6.0, "official") == (0.0, 0.0)


def test_official_lower_bound_pulls_too_close_pairs_closer():
    f = torch.tensor([[0.5, 0.0], [0.0, 0.0], [30.0, 0.0], [10.0, 0.0]], requires_grad=True)
    depths = torch.tensor([10.0, 16.0, 40.0, 41.0])  # pair 0 1 too close, pair 2 3 too far
    for form, sign in (("official", 1), ("corrected", -1)):
        loss = quasi_isometric_loss(f, depths, torch.ones(4, dtype=torch.bool), lower_bound=form)
        gradient = torch.autograd.grad(loss, f)[0]
        assert gradient[2, 0] > 0
        assert sign * gradient[0, 0] > 0


def test_descriptors_are_averages_that_count_the_border():
    features = torch.rand(1, 3, 6, 7)
    pooled = torch.nn.functional.avg_pool2d(features, 5, stride=1, padding=2)
    indices = torch.arange(42)[None]
    assert torch.allclose(object_descriptors(features, indices), pooled.flatten(2).transpose(1, 2), atol=1e-6)
