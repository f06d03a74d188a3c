"""Depth space: the measures against loops and planted descriptors, and the command from end to end."""

import json
import math
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch

from lib.analysis import depth_readout, depth_space
from lib.analysis.depth_report import depth_space_table, measure_depth_space
from lib.analysis.depth_space import BoundCounts, DescribedObjects
from lib.analysis.descriptors import Subject, count_training_batches
from lib.config import General, load_config
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.samples import inference_loader, training_loader
from lib.datasets.targets import encode_targets
from lib.engine.step import jitter_colors
from lib.losses import Criterion, quasi_isometric
from lib.models import build_model
from lib.ops.depth import decode_depth
from lib.visualization.depth_space import depth_spaces_png
from tools import depth_space as tool

BOUNDS = General(K=1.5, B=0.5, rad=10.0, random_seed=0)


def described(descriptors, depths, frames):
    depths, frames = np.asarray(depths), np.asarray(frames)
    return DescribedObjects(frames.max() + 1, np.asarray(descriptors, np.float32), depths, frames, depths)


def planted(make, seed=0, n_frames=12, name="planted"):
    """The depth space of held-out and fit objects, 5 per frame, with descriptors ``make(depths)``."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(np.arange(n_frames), 5)
    fit_depths = np.concatenate([[3.0, 60.0], rng.uniform(3, 60, 5 * n_frames - 2)])
    depths = rng.uniform(4, 59, 5 * n_frames)
    fit, held_out = (described(make(z), z, frames) for z in (fit_depths, depths))
    batch = depth_space.all_pairs(held_out.descriptors[:20], held_out.depths[:20]).count(BOUNDS)
    return measure_depth_space(name, held_out, fit, [batch], BOUNDS, 4)


# ---- pairs


def scattered(seed, n=60, channels=7, n_groups=9):
    """Descriptors, depths and groups of n objects, two of them of equal depth: their pair does not count."""
    rng = np.random.default_rng(seed)
    depths = rng.uniform(3, 30, n)
    depths[1] = depths[0]
    return rng.normal(size=(n, channels)).astype(np.float32) * 3, depths, rng.integers(0, n_groups, n)


@pytest.mark.parametrize("seed", range(3))
def test_pairs_are_those_of_a_loop(seed):
    descriptors, depths, groups = scattered(seed)
    pairs = depth_space.draw_pairs(descriptors, depths, groups)
    expected = [
        (abs(depths[i] - depths[j]), np.linalg.norm(descriptors[i].astype(float) - descriptors[j]))
        for i in range(60)
        for j in range(i + 1, 60)
        if groups[i] == groups[j]
    ]
    found = np.stack([pairs.depth_distance, pairs.feature_distance], axis=1)
    assert pairs.total == len(expected)
    np.testing.assert_allclose(sorted(found.tolist()), sorted(expected), rtol=1e-9)
    near = [(d_z, d_f) for d_z, d_f in expected if 0 < d_z <= 10]
    far = sum(d_f > 1.5 * d_z + 0.5 for d_z, d_f in near)
    close = sum(d_z / 1.5 - d_f - 0.5 > 0 for d_z, d_f in near)
    assert pairs.count(BOUNDS) == BoundCounts(len(near) - far - close, far, close)
    assert sum(pairs.count(BOUNDS).shares().values()) == pytest.approx(1)
    assert depth_space.all_pairs(descriptors, depths).total == 60 * 59 // 2


def test_too_many_pairs_are_drawn_without_repeats_and_by_seed():
    objects = scattered(4)
    everything = depth_space.draw_pairs(*objects)
    drawn = [depth_space.draw_pairs(*objects, seed, limit=50) for seed in (1, 1, 2)]
    for pairs in drawn:
        assert pairs.total == everything.total > 50 and len(set(pairs.feature_distance)) == 50
        assert set(pairs.feature_distance) <= set(everything.feature_distance)
    first, again, other = (pairs.depth_distance.tolist() for pairs in drawn)
    assert first == again != other


def test_batches_hold_so_many_frames_and_every_object():
    frames = np.repeat(np.arange(23), 3)
    numbers = depth_space.draw_batches(frames, 23, 4, seed=5)
    held = {number: set(frames[numbers == number].tolist()) for number in set(numbers.tolist())}
    assert sorted(len(some) for some in held.values()) == [3, 4, 4, 4, 4, 4]
    assert sorted(frame for some in held.values() for frame in some) == list(range(23))
    assert held != {number: set(range(4 * number, min(4 * number + 4, 23))) for number in held}


def test_the_official_loss_is_exactly_zero_where_it_is_said_to_be():
    """Through the loss itself, for batches of few objects, so that both happen."""
    rng, said, bounds = np.random.default_rng(0), [], General(K=1.2, B=0.1, rad=10.0)
    for _ in range(100):
        n = int(rng.integers(0, 7))
        descriptors = (rng.normal(size=(n, 2)) * 3).astype(np.float32)
        depths, mask = rng.uniform(3, 20, n).astype(np.float32), torch.ones(n, dtype=torch.bool)
        loss = quasi_isometric.quasi_isometric_loss(
            torch.tensor(descriptors), torch.tensor(depths), mask, bounds.K, bounds.B, bounds.rad
        )
        said.append(depth_space.all_pairs(descriptors, depths).count(bounds).official_loss_is_zero)
        assert said[-1] == (loss.item() == 0)
    assert 20 < sum(said) < 80


def test_shares_of_batches_add_up():
    batches = [BoundCounts(*c) for c in ((1, 1, 1), (0, 2, 0), (3, 0, 1), (4, 0, 0), (0, 0, 0), (0, 5, 5))]
    measured = depth_space.measure_batches(batches)
    kinds = ("both_bounds_violated", "only_above", "only_below", "none_violated", "no_pairs")
    assert [measured[kind] * 6 for kind in kinds] == pytest.approx([2, 1, 1, 1, 1])
    assert (measured["batches"], measured["pairs_within_rad"]) == (6, 23)
    assert [measured[name] * 23 for name in ("inside", "above", "below")] == pytest.approx([8, 8, 7])
    assert all(math.isnan(depth_space.measure_batches([])[kind]) for kind in kinds)


# ---- planted descriptors


def test_descriptors_that_are_depth_are_perfect():
    rng = np.random.default_rng(1)
    direction = rng.normal(size=8)
    space = planted(lambda z: np.outer(z, direction / np.linalg.norm(direction)) + 3)
    components, shares = depth_space.principal_components(space.objects.descriptors, space.objects.depths)
    assert shares == pytest.approx([1, 0], abs=1e-6) and np.abs(components[:, 1]).max() < 1e-3
    assert components[:, 0] == pytest.approx(space.objects.depths - space.objects.depths.mean(), abs=1e-3)
    figures = space.figures
    for pairs in figures["pairs"].values():
        assert pairs["inside"] == 1 and pairs["above"] == pairs["below"] == 0 and pairs["within_rad"] > 30
        assert pairs["spearman"] == pytest.approx(1, abs=1e-6)
        assert pairs["spearman_within_rad"] == pytest.approx(1, abs=1e-6)
    assert figures["training_batches"]["none_violated"] == figures["training_batches"]["inside"] == 1
    errors = figures["readout"]["errors"]
    assert errors["linear"]["mean"] < 1e-3 and errors["depth_head"]["mean"] == 0
    assert errors["linear"]["mean"] < errors["nearest_1"]["mean"] < 2 < errors["mean"]["mean"]


def test_descriptors_that_are_all_the_same_are_too_close():
    space = planted(lambda z: np.full((len(z), 8), 0.7))
    figures, pairs = space.figures, space.figures["pairs"]["within_batches"]
    assert pairs["above"] == 0 and 0 < pairs["inside"] < 1  # below B K = 0.75 m no distance is too small
    assert pairs["below"] == pytest.approx(1 - pairs["inside"])
    assert math.isnan(pairs["spearman"]) and math.isnan(pairs["spearman_within_rad"])
    assert figures["training_batches"]["only_below"] == 1
    errors = figures["readout"]["errors"]
    assert errors["linear"]["mean"] == pytest.approx(errors["mean"]["mean"])
    lines = depth_space_table([space]).splitlines()
    assert [line.split()[-1] for line in lines if "rank correlation" in line] == ["undefined"] * 4


def test_without_pairs_nothing_is_claimed():
    one = described([[1.0, 2.0]], [7.0], [0])
    figures = measure_depth_space("one", one, one, [BoundCounts(0, 0, 0)], BOUNDS, 4).figures
    pairs = figures["pairs"]["within_frames"]
    assert pairs["total"] == pairs["within_rad"] == 0
    assert all(math.isnan(pairs[name]) for name in ("inside", "above", "below", "spearman"))
    assert figures["training_batches"]["no_pairs"] == 1
    assert figures["readout"]["errors"]["nearest_5"]["mean"] == 0


# ---- read-outs


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_a_tree(k, monkeypatch):
    monkeypatch.setattr(depth_readout, "_CHUNK", 11)
    rng = np.random.default_rng(k)
    fit, held_out = (rng.normal(100, 1, (n, 6)).astype(np.float32) for n in (80, 50))
    _, expected = scipy.spatial.cKDTree(fit.astype(float)).query(held_out.astype(float), k=[*range(1, k + 1)])
    np.testing.assert_array_equal(depth_readout.nearest_descriptors(fit, held_out, k), expected)
    few = depth_readout.nearest_descriptors(fit[:3], held_out, 5)
    assert (np.sort(few, axis=1) == [0, 1, 2]).all()


def test_depth_of_neighbours_by_hand():
    fit = described([[0.0], [1.0], [2.0], [3.0], [4.0], [90.0]], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0], [0] * 6)
    held_out = described([[0.9], [70.0]], [22.0, 59.0], [0, 0])
    errors = depth_readout.measure_readouts(fit, held_out, [(0, 30), (60, 70)])["errors"]
    assert errors["nearest_1"]["mean"] == pytest.approx((2 + 1) / 2)
    assert errors["nearest_1"]["relative"] == pytest.approx((2 / 22 + 1 / 59) / 2)
    near, empty = errors["nearest_1"]["by_distance"].values()
    assert (near["count"], near["mean"], empty["count"]) == (1, 2, 0) and math.isnan(empty["median"])
    assert errors["nearest_5"]["mean"] == pytest.approx((30 - 22 + 59 - 40) / 2)
    assert errors["median"]["mean"] == pytest.approx((35 - 22 + 59 - 35) / 2)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("penalty", [1e-6, 0.1, 10.0])
def test_ridge_is_least_squares_with_rows_for_the_penalty(log, penalty):
    rng = np.random.default_rng(3)
    fit, held_out = (rng.normal(2, [1, 5, 0.1, 3], (n, 4)) for n in (70, 30))
    fit[:, 2] = held_out[:, 2] = 4.0  # a dead channel
    depths = (20 + fit @ [3.0, 0.5, 0.0, -1.0] + rng.normal(size=70)).clip(3, 60)
    x = (fit - fit.mean(axis=0)) / np.where(fit.std(axis=0) > 0, fit.std(axis=0), 1)
    y = np.log(depths) if log else depths
    rows = np.concatenate([x / math.sqrt(70), math.sqrt(penalty) * np.eye(4)])
    targets = np.concatenate([(y - y.mean()) / math.sqrt(70), np.zeros(4)])
    weights = np.linalg.lstsq(rows, targets, rcond=None)[0]
    expected = x @ weights + y.mean()
    found = depth_readout.linear_depths(fit, depths, fit, penalty, log)
    expected = np.clip(np.exp(expected) if log else expected, depths.min(), depths.max())
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    extreme = depth_readout.linear_depths(fit, depths, 1e6 * held_out, penalty, log)
    assert extreme.min() >= depths.min() * (1 - 1e-9) and extreme.max() <= depths.max() * (1 + 1e-9)


def test_penalty_fits_the_noise_and_halves_are_of_frames():
    rng = np.random.default_rng(6)
    frames = np.repeat(np.arange(20), 3)
    depths = rng.uniform(3, 60, 60)
    exact = described(np.outer(depths, [1.0, 2.0]), depths, frames)
    noise = described(rng.normal(size=(60, 40)), depths, frames)
    assert depth_readout.choose_penalty(exact) == min(depth_readout.PENALTIES)
    assert depth_readout.choose_penalty(noise) >= 1
    # descriptors that only identify the frame: fitted exactly if objects of one frame were in both halves
    depths = np.repeat(rng.uniform(3, 60, 20), 3) + rng.normal(0, 0.1, 60)
    marks = described(rng.normal(size=(20, 40))[frames] + rng.normal(0, 0.01, (60, 40)), depths, frames)
    assert depth_readout.choose_penalty(marks) >= 1
    few = described(np.eye(3), [5.0, 6.0, 7.0], [0, 0, 0])
    assert depth_readout.choose_penalty(few) == depth_readout.DEFAULT_PENALTY


# ---- the image


@pytest.mark.parametrize("n_frames", [1, 400])
def test_every_panel_shows_something(n_frames):
    """One network with pairs, and one with a single object; the name is no formula."""
    rng = np.random.default_rng(n_frames)
    one = described([[1.0, 2.0]], [7.0], [0])
    empty = measure_depth_space("empty", one, one, [], BOUNDS, 4)
    full = planted(lambda z: np.outer(z, rng.uniform(0.2, 1, 8)) + rng.normal(size=(len(z), 8)), 0, n_frames, "a $ b")
    image = cv2.imdecode(np.frombuffer(depth_spaces_png([full, empty], dpi=50), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (4 * 225, 2 * 350, 3)
    for row in np.split(image, 4):
        for panel in np.split(row, 2, axis=1):
            assert (panel != 255).any(axis=2).mean() > 0.02
    hexagons = image[: 2 * 225, :350].astype(int)
    coloured, bare = ((np.ptp(half, axis=2) > 60).mean() for half in (hexagons, image[: 2 * 225, 350:].astype(int)))
    assert coloured > bare + (0.05 if n_frames > 1 else 0)


# ---- the command

YAML = """
general: {random_seed: 3, exp_name: tiny, qi: true, K: 1.0, B: 0.0, rad: 20.0}
dataset: {batch_size: 1, num_workers: 0, resolution: [320, 96], writelist: [Car, Pedestrian]}
model: {backbone: dla34_narrow, pretrained: false}
"""


@pytest.fixture
def project(tiny_kitti, tmp_path):
    """Six frames with three objects each to train on, three others to measure on, and a random network whose
    descriptors are about as far apart as the depths, so that bounds are violated in both directions.
    """
    training = tiny_kitti / "training"
    for number in range(10, 16):
        image = np.random.default_rng(number).integers(0, 255, (375, 1242, 3), dtype=np.uint8)
        cv2.imwrite(str(training / "image_2" / f"{number:06d}.png"), cv2.blur(image, (25, 25)) // 2 + number * 5)
        shutil.copy(training / "calib/000000.txt", training / f"calib/{number:06d}.txt")
        shutil.copy(training / "label_2/000000.txt", training / f"label_2/{number:06d}.txt")
    (tiny_kitti / "ImageSets/train.txt").write_text("".join(f"{n:06d}\n" for n in range(10, 16)))
    (tiny_kitti / "ImageSets/val.txt").write_text("000000\n000001\n000003\n")
    (tmp_path / "tiny.yaml").write_text(YAML)
    config = load_config(tmp_path / "tiny.yaml", [f"general.dataroot={tiny_kitti}"])
    torch.manual_seed(0)
    model = build_model(config)
    batches = [independent_batch(model, batch) for batch in training_loader(KITTI(tiny_kitti, "train"), config)]
    ratios = torch.cat([d_f / d_z for d_f, d_z in batches])
    with torch.no_grad():
        last = [m for m in model.neck.modules() if isinstance(m, torch.nn.BatchNorm2d)][-1]
        for parameter in (last.weight, last.bias):
            parameter.mul_(1 / ratios.quantile(0.5))
    torch.save({"epoch": 1, "model_state": model.state_dict(), "optimizer_state": {}}, tmp_path / "c.pth")
    return config, model.eval()


@torch.no_grad()
def independent_batch(model, batch):
    """Feature and depth distances of a training batch's pairs, by another path: average pooling, a loop."""
    features = model.train()(batch.images, batch.targets["indices"])["features"]
    pooled = torch.nn.functional.avg_pool2d(features, 5, stride=1, padding=2).flatten(2)
    mask = batch.targets["mask_3d"]
    at = [(b, batch.targets["indices"][b, k], batch.targets["depth"][b, k, 0]) for b, k in mask.nonzero().tolist()]
    pairs = [(x, y) for n, x in enumerate(at) for y in at[n + 1 :]]
    d_f = [(pooled[x[0], :, x[1]] - pooled[y[0], :, y[1]]).norm() for x, y in pairs]
    return torch.tensor(d_f), torch.tensor([abs(x[2] - y[2]) for x, y in pairs])


def call(tmp_path, *arguments, out="out", checkpoint="c.pth"):
    given = ["--config", str(tmp_path / "tiny.yaml"), "--checkpoint", str(tmp_path / checkpoint)]
    given += ["--out", str(tmp_path / out), "--set", f"general.dataroot={tmp_path / 'KITTI'}"]
    return tool.main([*given, *arguments])


def count_batches(config, model, tmp_path):
    frames = KITTI(tmp_path / "KITTI", "train")
    subject = Subject("tiny", tmp_path / "c.pth", config, model, frames, frames)
    return count_training_batches(subject, None, torch.device("cpu"))


def figures_of(tmp_path):
    return json.loads((tmp_path / "out/depth_space.json").read_text())["models"]


def test_the_figures_are_those_of_the_network(project, tmp_path, capsys):
    config, model = project
    assert call(tmp_path) == 0
    said = capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["depth_space.json", "depth_space.png"]
    (figures,) = figures_of(tmp_path)
    assert figures["frames"] == {"split": 3, "fit_split": 6} and figures["objects"] == {"split": 4, "fit_split": 18}
    assert figures["bounds"] == {"K": 1.0, "B": 0.0, "rad": 20.0}

    frames = KITTI(tmp_path / "KITTI", "val")
    (batch,) = [b for b in inference_loader(frames, config, indices=[0])]
    frame = frames.read(0)
    targets = encode_targets(frame.objects, frame.calibration, Augmentation.identity((1242, 375)), config.dataset)
    with torch.no_grad():
        outputs = model.eval()(batch.images, torch.from_numpy(targets["indices"])[None])
        pooled = torch.nn.functional.avg_pool2d(outputs["features"], 5, stride=1, padding=2)[0].flatten(1).numpy()
    mask = targets["mask_3d"]
    f, z = pooled[:, targets["indices"][mask]].T, targets["depth"][mask, 0]
    head = decode_depth(outputs["depth"][0, :, 0]).numpy()[mask]
    d_f, d_z = scipy.spatial.distance.pdist(f), scipy.spatial.distance.pdist(z[:, None])
    pairs = figures["pairs"]["within_frames"]
    assert (pairs["total"], pairs["within_rad"]) == (3, 3) and sorted(z.round(2)) == [9.44, 16.2, 26.83]
    assert pairs["above"] == pytest.approx((d_f > d_z).mean()) and pairs["below"] == pytest.approx((d_f < d_z).mean())
    assert pairs["spearman"] == pytest.approx(scipy.stats.spearmanr(d_f, d_z).statistic)
    assert figures["pairs"]["within_batches"]["total"] == 3  # batches of one frame
    errors = figures["readout"]["errors"]
    near = errors["depth_head"]["by_distance"]["0-30"]
    assert near["count"] == 3 and near["mean"] == pytest.approx(np.abs(head - z).mean(), rel=1e-4)
    assert errors["mean"]["by_distance"]["30-50"]["mean"] == pytest.approx(41.67 - (9.44 + 16.2 + 26.83) / 3, abs=1e-4)
    assert figures["training_batches"]["batches"] == 6 and 0 < figures["training_batches"]["both_bounds_violated"] < 1
    assert f"{100 * pairs['above']:.1f} %" in said and f"{errors['nearest_5']['mean']:.2f}" in said
    assert str(tmp_path / "out" / "depth_space.png") in said

    image = cv2.imread(str(tmp_path / "out" / "depth_space.png"))
    orange = np.abs(image.astype(int) - (0x00, 0x5E, 0xD5)).max(axis=2) < 20
    assert image.shape == (1980, 770, 3)
    assert all(half.sum() > 100 for half in np.split(orange[:990], 2))  # the bounds in both


@pytest.mark.parametrize("jitter", [[], [0.9, 0.9, 0.9, 0.4]])
def test_batches_are_judged_as_the_loss_judges_them(project, tmp_path, jitter):
    config, model = project
    config = replace(config, dataset=replace(config.dataset, color_jitter=tuple(jitter)))
    counts = count_batches(config, model, tmp_path)
    criterion, loss_is_zero, above = Criterion(config.general), [], []
    model.train()
    for batch in training_loader(KITTI(tmp_path / "KITTI", "train"), config):
        if jitter:
            seed = config.general.random_seed
            batch = batch._replace(images=jitter_colors(batch.images, jitter, seed, 0, batch.frames))  # noqa: PLW2901
        with torch.no_grad():
            losses = criterion(model(batch.images, batch.targets["indices"]), batch.targets)
        loss_is_zero.append(losses["quasi_isometric"].item() == 0)
        d_f, d_z = independent_batch(model, batch)
        above.append(int((d_f > d_z).sum()))
        assert len(d_f) == counts[len(above) - 1].pairs
    assert [c.official_loss_is_zero for c in counts] == loss_is_zero and len(set(loss_is_zero)) == 2
    assert [c.above for c in counts] == above


def test_cropped_and_unreadable_frames_have_no_pairs(project, tmp_path):
    config, model = project
    cropped = replace(config, dataset=replace(config.dataset, random_crop=1.0))
    assert [c.pairs for c in count_batches(cropped, model, tmp_path)] == [0] * 6
    image = tmp_path / "KITTI/training/image_2/000012.png"
    content = image.read_bytes()
    image.write_bytes(content[:5000] + b"\0" * (len(content) - 5012) + content[-12:])
    skipping = replace(config, dataset=replace(config.dataset, on_bad_frame="skip"))
    assert len(count_batches(skipping, model, tmp_path)) == 5
    with pytest.raises(ValueError, match=r"000012\.png"):
        count_batches(config, model, tmp_path)


def test_two_checkpoints_side_by_side(project, tmp_path, capsys):
    """The second as the official code saves it, with a YAML of its own."""
    _, model = project
    other = {f"module.{name}": value for name, value in model.state_dict().items()}
    other["module.depth.2.bias"] = other["module.depth.2.bias"] - 1
    torch.save({"epoch": 1, "model_state": other, "optimizer_state": {}}, tmp_path / "d.pth")
    (tmp_path / "other.yaml").write_text(YAML.replace("rad: 20.0", "rad: 8.0").replace("K: 1.0", "K: 2"))
    second = ["--checkpoint2", str(tmp_path / "d.pth"), "--config2", str(tmp_path / "other.yaml")]
    assert call(tmp_path, *second, "--names", "first one", "2nd") == 0
    a, b = figures_of(tmp_path)
    assert (a["name"], b["name"]) == ("first one", "2nd") and b["bounds"] == {"K": 2.0, "B": 0.0, "rad": 8.0}
    assert a["pairs"]["within_frames"]["spearman"] == pytest.approx(b["pairs"]["within_frames"]["spearman"])
    assert (a["pairs"]["within_frames"]["within_rad"], b["pairs"]["within_frames"]["within_rad"]) == (3, 1)
    assert a["readout"]["errors"]["nearest_1"] == b["readout"]["errors"]["nearest_1"]
    assert a["readout"]["errors"]["depth_head"] != b["readout"]["errors"]["depth_head"]
    table = capsys.readouterr().out
    assert "first one" in table and "1, 0, 20 m" in table and "2, 0, 8 m" in table
    assert cv2.imread(str(tmp_path / "out" / "depth_space.png")).shape == (1980, 1540, 3)
    assert tool.default_name(tmp_path / "d.pth") == f"{tmp_path.name}/d"
    assert tool.default_name(tmp_path / "outputs/x/checkpoints/e_5.pth") == "x/e_5"


def test_few_frames_are_evenly_chosen_and_one_object_claims_nothing(project, tmp_path, capsys):
    assert call(tmp_path, "--max-frames", "2") == 0
    (figures,) = figures_of(tmp_path)
    assert figures["frames"] == {"split": 2, "fit_split": 2} and figures["training_batches"]["batches"] == 2
    assert figures["objects"] == {"split": 4, "fit_split": 6}  # the first and the last frame
    (tmp_path / "KITTI/ImageSets/val.txt").write_text("000003\n")
    capsys.readouterr()
    assert call(tmp_path, "--overwrite") == 0
    figures = figures_of(tmp_path)[0]
    assert figures["pairs"]["within_frames"]["spearman"] is None and "undefined" in capsys.readouterr().out
    assert figures["readout"]["errors"]["linear"]["by_distance"]["0-30"]["mean"] is None


def test_mistakes_are_one_line_and_leave_nothing(project, tmp_path, capsys):
    _, model = project

    def error(*arguments, **options):
        assert call(tmp_path, *arguments, **options) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("error: ")
        assert not (tmp_path / "out").exists()
        return said

    assert "no.pth: no such checkpoint" in error(checkpoint="no.pth")
    assert "no.pth: no such checkpoint" in error("--checkpoint2", str(tmp_path / "no.pth"))
    assert "a checkpoint of another model" in error("--set", "dataset.class_names=[Car, Pedestrian]")
    assert "--config2 goes with --checkpoint2" in error("--config2", "x.yaml")
    assert "--names: expected 1, one for each checkpoint, got 2" in error("--names", "a", "b")
    assert "--max-frames must be >= 1, got 0" in error("--max-frames", "0")
    assert "--split: the split 'test' has no labels" in error("--split", "test")
    assert "--fit-split: the split 'test' has no labels" in error("--fit-split", "test")
    assert "share 3 frames, the first is 000000" in error("--fit-split", "trainval")
    assert "have no object to describe; dataset.writelist is Cyclist" in error("--set", "dataset.writelist=[Cyclist]")
    model.state_dict()["backbone.base_layer.0.weight"][:] = 1e38  # finite, but not what follows from it
    torch.save({"epoch": 1, "model_state": model.state_dict()}, tmp_path / "nan.pth")
    assert "nan.pth: its network's outputs on split 'val' are not finite" in error(checkpoint="nan.pth")
    assert call(tmp_path, out="c.pth") == 2 and "--out must be a folder" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "depth_space.png").write_text("good")
    assert call(tmp_path) == 2 and "--overwrite replaces it" in capsys.readouterr().err
    assert [p.read_text() for p in (tmp_path / "out").iterdir()] == ["good"]
