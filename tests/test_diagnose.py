"""Oracle replacements and the ceiling: properties, planted faults, the real labels, and the command."""

import csv
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib.analysis import diagnosis
from lib.analysis.ceiling import REASONS, LabelledFrame, measure_ceiling
from lib.analysis.ideal_outputs import ideal_outputs
from lib.analysis.oracle import PREDICTED, QUANTITIES, ROUNDED, replace_and_evaluate, replace_quantity
from lib.config import CLASS_NAMES, Config, Dataset, load_config
from lib.engine.checkpoint import save_checkpoint
from lib.evaluation import DIFFICULTIES, evaluate_objects
from lib.models import build_model
from lib.pipeline import evaluation as evaluating
from lib.structures import Calibration, FrameInfo, Object3d, read_split
from lib.system.files import without_nan
from lib.visualization.oracle import oracle_png
from tests.conftest import CALIB, PROJECT, SHARED_KITTI
from tools import diagnose, train_val

CAMERA = Calibration(np.array(CALIB.split()[1:], dtype=float))
SIZE = (1242, 375)
FRAMES = ("000000", "000001", "000002", "000003")


def car(u, z, v=190.0, rotation_y=0.4, height=1.5, **changes):
    """A car whose centre is seen at pixel (u, v) and depth z, with a 2D box around its corners."""
    x, y, z = CAMERA.back_project(u, v, z)
    obj = Object3d("Car", 0.0, 0, 0.0, (0, 0, 0, 0), (height, 1.6, 3.9), (x, y + height / 2, z), rotation_y)
    corners = CAMERA.project(obj.corners_cam())
    (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    alpha = CAMERA.rotation_y_to_alpha(rotation_y, u)
    obj = Object3d.from_line(replace(obj, bbox_img=(x1, y1, x2, y2), alpha=alpha).to_label_line())  # two decimals
    return replace(obj, **changes)


def street(number=48):
    """Four frames with ``number`` cars in all, far enough from each other; AP40 needs 40 of them to be 100."""
    frames = [[], [], [], []]
    for k in range(number):
        frames[k % 4].append(car(60 + 90 * (k // 4), 14 + 0.3 * k, rotation_y=-3 + 0.12 * k))
    return frames


def random_pairs(number=100):
    rng = np.random.default_rng(5)
    for _ in range(number):
        pair = []
        for _ in range(2):
            u, z, v = rng.uniform(0, 1242), rng.uniform(3, 60), rng.uniform(150, 300)
            obj = car(u, z, v, rng.uniform(-3.1, 3.1), rng.uniform(1.2, 2.5))
            pair.append(replace(obj, alpha=rng.uniform(-3.1, 3.1), dimensions=tuple(rng.uniform(1, 4, 3).tolist())))
        yield replace(pair[0], score=rng.random()), replace(pair[1], truncated=0.2, occluded=1)


def center(obj):
    x, y, z = obj.location_cam
    return np.array([x, y - obj.dimensions[0] / 2, z])


def pixel(obj):
    return CAMERA.project(center(obj)[None])[0]


def numbers(obj):
    turn = (math.cos(obj.rotation_y), math.sin(obj.rotation_y), math.cos(obj.alpha), math.sin(obj.alpha))
    return np.array([*obj.bbox_img, *obj.dimensions, *obj.location_cam, *turn])


# ---- one quantity ----


def test_each_replacement_changes_what_it_says_and_nothing_else():
    pairs = list(random_pairs())
    assert len(pairs) == 100
    for detection, label in pairs:
        for name in QUANTITIES:
            assert numbers(replace_quantity(detection, detection, CAMERA, name)) == pytest.approx(numbers(detection))
        got = {name: replace_quantity(detection, label, CAMERA, name) for name in QUANTITIES}
        assert got["box_2d"] == replace(detection, bbox_img=label.bbox_img)
        assert got["heading"] == replace(detection, alpha=label.alpha, rotation_y=label.rotation_y)
        assert got["all"] == replace(label, score=detection.score)

        assert got["size"] == replace(detection, dimensions=label.dimensions, location_cam=got["size"].location_cam)
        assert center(got["size"]) == pytest.approx(center(detection))

        moved = got["depth"]
        assert moved == replace(detection, location_cam=moved.location_cam)
        assert moved.location_cam[2] == label.location_cam[2]
        assert pixel(moved) == pytest.approx(pixel(detection))

        moved = got["center"]
        assert moved.location_cam[2] == detection.location_cam[2]
        assert pixel(moved) == pytest.approx(pixel(label))
        assert (moved.dimensions, moved.alpha, moved.score) == (detection.dimensions, detection.alpha, detection.score)

        both = replace_quantity(moved, label, CAMERA, "depth")
        assert numbers(both) == pytest.approx(numbers(got["location"]))
        assert center(got["location"]) == pytest.approx(center(label))
        assert got["location"].dimensions == detection.dimensions


def test_a_moved_pixel_turns_the_box_with_its_ray():
    """By hand: f = 700 px; from the optical axis to 700 px beside it the ray turns by 45 degrees, and the box too."""
    camera = Calibration(np.array([[700, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]))
    straight = Object3d("Car", 0, 0, 0.3, (0, 0, 9, 9), (2, 1, 1), (0, 1, 10), 0.3, 0.5)
    label = replace(straight, location_cam=(20, 1, 20), rotation_y=1.0, score=None)
    moved = replace_quantity(straight, label, camera, "center")
    assert moved.location_cam == pytest.approx((10, 1, 10))
    assert (moved.alpha, moved.rotation_y) == pytest.approx((0.3, 0.3 + math.pi / 4))


# ---- AP ----


def lower_box(label):
    """25.5 px high labels whose detections are 24 px high: too low to count, but still 0.94 of the box."""
    x1, _, x2, y2 = label.bbox_img
    return replace(label, bbox_img=(x1, y2 - 25.5, x2, y2))


SIDEWAYS = np.array([60, 0])
FAULTS = {
    "depth": (lambda o: _at(o, pixel(o), o.location_cam[2] + 6), {"depth", "location", "all"}),
    "center": (lambda o: _at(o, pixel(o) + SIDEWAYS, o.location_cam[2]), {"center", "location", "all"}),
    "location": (lambda o: _at(o, pixel(o) + SIDEWAYS, o.location_cam[2] + 6), {"location", "all"}),
    "size": (lambda o: replace_quantity(o, replace(o, dimensions=(2.5, 2.5, 6)), CAMERA, "size"), {"size", "all"}),
    "heading": (lambda o: replace(o, rotation_y=o.rotation_y + 1.5, alpha=o.alpha + 1.5), {"heading", "all"}),
    "box_2d": (lambda o: replace(o, bbox_img=(*o.bbox_img[:3], o.bbox_img[3] - 1.5)), {"box_2d", "all"}),
}


def _at(obj, place, z):
    x, y, z = CAMERA.back_project(*place.tolist(), z)
    return replace(obj, location_cam=(x, y + obj.dimensions[0] / 2, z))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_cured_by_its_own_replacement_alone(fault):
    """The 2D boxes stay right (but for their own fault), so every detection finds its label."""
    spoil, cures = FAULTS[fault]
    labels = street()
    if fault == "box_2d":
        labels = [[lower_box(label) for label in objects] for objects in labels]
    detections = [[replace(spoil(o), score=0.9 - 0.01 * k) for k, o in enumerate(objects)] for objects in labels]
    oracle = replace_and_evaluate(labels, detections, [CAMERA] * 4, ["Car"])
    assert oracle.matched == oracle.detections == {"Car": 48}
    ap = {name: result.ap("Car", "3d", "moderate") for name, result in oracle.results.items()}
    assert ap == {name: 100.0 if name in cures else 0.0 for name in (PREDICTED, *QUANTITIES, ROUNDED)}
    row = next(line for line in oracle.table().splitlines() if line.startswith(QUANTITIES[fault]))
    assert "100.00 (+100.00)" in row


def test_only_matched_detections_are_replaced():
    """A car without label, a van, a car behind the camera, and a detection whose label another one matches better."""
    van, taken = replace(car(300, 20), type="Van"), car(700, 20)
    far = {"location_cam": (0.0, 1.0, 90.0)}
    detections = [
        replace(car(60, 30), **far, score=0.9),  # no label
        replace(car(300, 20), **far, score=0.8),  # of the van
        replace(car(700, 20), location_cam=(0.0, 1.0, -3.0), score=0.7),  # behind the camera
        replace(car(705, 20), **far, score=0.6),  # its label is taken
    ]
    oracle = replace_and_evaluate([[van, taken]], [detections], [CAMERA], ["Car"])
    assert (oracle.matched, oracle.detections) == ({"Car": 1}, {"Car": 4})
    assert oracle_png(oracle).startswith(b"\x89PNG")  # also where there is no figure
    # the van's box is neither a true nor a false positive once its depth is right
    curves = {name: oracle.results[name].curves["official", "Car", "3d", "hard"] for name in (PREDICTED, "all")}
    assert [len(curve.thresholds) for curve in curves.values()] == [0, 0]
    assert oracle.to_json()["Car"]["official"]["3d"]["all"] == [0.0, 0.0, 0.0]


# ---- the ceiling ----


def ceiling_of(frames, topk=50, rows="official", **dataset):
    labelled = [LabelledFrame(FrameInfo(i, SIZE, CAMERA), f) for i, f in zip(FRAMES, frames, strict=True)]
    tester = replace(Config().tester, topk=topk, map_to_image=rows)
    return measure_ceiling(labelled, replace(Config(), dataset=Dataset(**dataset), tester=tester))[0]


DONT_CARE = Object3d("DontCare", -1, -1, -10, (0, 0, 9, 9), (-1, -1, -1), (-1000, -1000, -1000), -10)
TALL = {"bbox_img": (600.0, 150.0, 660.0, 200.0)}
"""a box that counts, whatever the depth"""
PLANTED = {
    "far": [car(1150, 70, **TALL)],
    "near": [car(1150, 1.5, **TALL)],
    "line": [DONT_CARE] * 50 + [car(1150, 20)],
    "outside": [car(-40, 20, truncated=0.1)],
    "cell": [car(1150, 20), car(1150.5, 28)],
    "neighbour": [car(1150, 20), car(1154, 28)],
    "decoded": [car(1150, 20, alpha=-1.0)],
}


@pytest.mark.parametrize("reason", PLANTED)
def test_the_reason_of_a_planted_fault_is_found(reason):
    frames = street()
    frames[2] = [*frames[2], *PLANTED[reason]]
    ceiling = ceiling_of(frames)
    assert [ceiling.not_reached(name)[1] for name in REASONS] == [int(name == reason) for name in REASONS]
    (missed,) = ceiling.missed
    assert (missed.frame, frames[2][missed.line - 1]) == (FRAMES[2], PLANTED[reason][-1])
    assert 0 < ceiling.ap[1] < 100 and (0 < missed.overlap < 0.7) == (reason == "decoded")
    (row,) = (line for line in ceiling.table().splitlines() if line.strip().startswith(REASONS[reason]))
    assert row.split()[-2] == "1"


def test_too_few_peaks_are_found():
    assert ceiling_of(street(), topk=1).not_reached("topk")[1] == 44  # only the nearest car of each frame is decoded


def test_rows_by_height_ratio_cost_boxes_where_the_ratios_differ():
    """At 1280 x 448 the official rows are squeezed by a seventh about the middle: boxes move, and low ones shrink."""
    frames = street()
    frames[0] = [car(60 + 90 * k, 40, v=189, bbox_img=(50.0 + 90 * k, 160.0, 100.0 + 90 * k, 186.0)) for k in range(12)]
    frames[1] = [car(100 + 190 * k, 20, v=300) for k in range(6)]
    official = ceiling_of(frames, resolution=(1280, 448))
    assert official.not_reached("decoded")[1] == 12 + 6
    exact = ceiling_of(frames, resolution=(1280, 448), rows="exact")
    assert exact.missed == () and exact.ap[1:] == (100, 100)


def test_every_label_of_the_writelist_is_decoded_or_has_a_reason():
    rng = np.random.default_rng(8)
    kinds = ("Car", "Van", "Pedestrian", "Truck")
    seen = set()
    for merging in (False, True):
        dataset = Dataset(class_merging=merging, writelist=("Car", "Pedestrian"), resolution=(320, 96))
        for _ in range(20):
            places = rng.uniform((-60, 1, 150), (1300, 75, 220), (60, 3)).tolist()
            labels = [car(*place, type=str(rng.choice(kinds))) for place in places]
            labels = [replace(label, **TALL) if rng.random() < 0.2 else label for label in labels]
            labels[0] = replace(labels[0], dimensions=(-1, -1, -1))
            ideal = ideal_outputs(FrameInfo("x", SIZE, CAMERA), labels, dataset, topk=8)
            own = {line for line, label in enumerate(labels) if label.type in dataset.writelist}
            assert set(ideal.lines) | set(ideal.lost) == own
            assert all(ideal.lost[line] == "cell" for line in set(ideal.lines) & set(ideal.lost))
            assert [CLASS_NAMES[k] for k in ideal.outputs["classes"][0]] == [labels[k].type for k in ideal.lines]
            seen |= set(ideal.lost.values())
    assert seen == set(REASONS) - {"decoded"}


def test_a_class_that_is_never_decoded_reaches_nothing():
    ceiling = ceiling_of([[car(600, 70, **TALL)], [], [], []])
    assert ceiling.ap == (0, 0, 0) and ceiling.not_reached("far")[1] == 1
    ceiling = ceiling_of([[car(600, 30, **(TALL | {"occluded": 3}))], [], [], []])  # nothing counts
    assert np.isnan(ceiling.ap).all() and ceiling.table().splitlines()[1].split() == ["ceiling", "[%]", "-", "-", "-"]
    assert json.dumps(without_nan(ceiling.to_json()), allow_nan=False)


# ---- the real labels ----


@pytest.mark.kitti
@pytest.mark.slow
def test_ceiling_of_the_real_val_labels(real_labels, tmp_path):
    """Against a count that shares no code: cars of a frame that count and stand in one cell, or in cells that touch."""
    arguments = ["--ceiling", "--config", str(PROJECT / "experiments/monodle/monodle.yaml"), "--out", str(tmp_path)]
    arguments += ["--labels", str(real_labels / "label_2"), "--calib", str(real_labels / "calib")]
    assert diagnose.main([*arguments, "--sizes", str(SHARED_KITTI / "image_sizes.csv")]) == 0
    figures = json.loads((tmp_path / "ceiling.json").read_text())
    (ceiling,) = figures["classes"]
    assert figures["frames"] == 3769 and ceiling["ground_truth"] == [2906, 7874, 10960]
    assert ceiling["ap"] == pytest.approx([100, 100, 100], abs=0.01)
    others = [counts for reason, counts in ceiling["not_reached"].items() if reason != "neighbour"]
    assert ceiling["not_reached"]["neighbour"] == [0, 2, 10] and not np.any(others)
    touching = touching_cells(real_labels)
    missed = list(csv.DictReader((tmp_path / "missed.csv").read_text().splitlines()))
    assert sorted(row["frame"] for row in missed) == sorted(touching) and len(touching) == 10


def touching_cells(real_labels):
    """The frame of every pair of cars whose cells are the same or touch, at 1280 x 384."""
    sizes = dict(line.split(",", 1) for line in (SHARED_KITTI / "image_sizes.csv").read_text().split()[1:])
    found = []
    for frame_id in read_split(PROJECT / "data/KITTI/ImageSets/val.txt"):
        width, height = map(int, sizes[frame_id].split(","))
        text = (real_labels / "calib" / f"{frame_id}.txt").read_text()
        P2 = next(np.array(line.split()[1:], dtype=float) for line in text.splitlines() if line.startswith("P2"))
        cells = []
        for line in (real_labels / "label_2" / f"{frame_id}.txt").read_text().splitlines():
            name, truncated, occluded, _, _, y1, _, y2, h, _, _, x, y, z, _ = line.split()
            easy_enough = float(y2) - float(y1) >= 24 and float(truncated) <= 0.5 and int(occluded) <= 2
            if name == "Car" and easy_enough:
                u, v = np.array([float(x), float(y) - float(h) / 2]) * P2[[0, 5]] / float(z) + P2[[2, 6]]
                u, v = u + P2[3] / float(z), v + P2[7] / float(z)
                scale = 1280 / width
                cells.append((int(u * scale / 4), int(((v - height / 2) * scale + 192) / 4)))
        found += [
            frame_id for k, a in enumerate(cells) for b in cells[:k] if abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1
        ]
    return found


# ---- the command ----

YAML = """
general: {exp_name: tiny}
dataset: {batch_size: 2, num_workers: 0, resolution: [320, 96], writelist: [Car]}
model: {backbone: dla34_narrow, pretrained: false}
tester: {threshold: 0.0, topk: 12, map_to_image: exact}
"""


@pytest.fixture
def street_kitti(tiny_kitti):
    for frame_id, objects in zip(FRAMES, street(), strict=True):
        text = "".join(obj.to_label_line() + "\n" for obj in objects)
        (tiny_kitti / "training/label_2" / f"{frame_id}.txt").write_text(text)
    return tiny_kitti


@pytest.fixture
def run(street_kitti, tmp_path, monkeypatch):
    """Calls diagnose in a working directory with a config and an untrained checkpoint; returns its status."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(YAML)
    torch.manual_seed(0)
    model = build_model(load_config("tiny.yaml"))
    # so that it sees cars only, and of positive size
    model.heatmap[2].bias.data[[name != "Car" for name in CLASS_NAMES]] = -1e4
    model.size_3d[2].bias.data.fill_(1.5)
    save_checkpoint(tmp_path / "c.pth", model, torch.optim.Adam(model.parameters()), 1, yaml.safe_load(YAML), None)

    def call(*arguments, **named):
        options = {"--config": "tiny.yaml", "--out": "out"} | {f"--{k}": v for k, v in named.items()}
        pairs = [str(word) for pair in options.items() for word in pair]
        return diagnose.main([*pairs, *arguments, "--set", f"general.dataroot={street_kitti}"])

    return call


def test_planted_detections_through_the_command(run, tmp_path, monkeypatch, capsys):
    spoil, cures = FAULTS["depth"]
    planted = [(i, [replace(spoil(o), score=0.5) for o in f]) for i, f in zip(FRAMES, street(), strict=True)]
    monkeypatch.setattr(diagnosis, "predict", lambda *arguments, **options: planted)
    assert run(checkpoint="c.pth") == 0
    figures = json.loads((tmp_path / "out/oracle.json").read_text())
    assert (figures["checkpoint"], figures["split"], figures["frames"]) == ("c.pth", "val", 4)
    for quantity in QUANTITIES:
        expected = 100 if quantity in cures else 0
        assert figures["replaced"]["Car"]["official"]["3d"][quantity][1] == expected
        assert figures["replaced"]["Car"]["loose"]["bev"][quantity][1] == expected
    assert figures["depth_errors"][0]["total"]["mean_signed"] == pytest.approx(6)
    said, written = capsys.readouterr().out, (tmp_path / "out/oracle.txt").read_text()
    for text in (said, written):
        assert "100.00 (+100.00)" in text and "Car: depth error" in text
    for name in ("oracle.png", "depth_error.png"):
        assert len(np.unique(cv2.imread(str(tmp_path / "out" / name)).reshape(-1, 3), axis=0)) > 50
    assert run(checkpoint="c.pth") == 2
    assert "oracle.txt exists already; --overwrite" in capsys.readouterr().err
    monkeypatch.undo()  # now with the network's own detections
    monkeypatch.chdir(tmp_path)
    assert run("--overwrite", "--max-frames", "1", checkpoint="c.pth") == 0
    figures = json.loads((tmp_path / "out/oracle.json").read_text())
    assert figures["frames"] == 1 and figures["replaced"]["Car"]["detections"] == 12


def test_the_rounded_figures_are_those_of_the_evaluation(run, street_kitti, tmp_path, monkeypatch):
    """Scores that two decimals make equal, and a random depth: AP is neither 0 nor 100, and rounding changes it."""
    rng = np.random.default_rng(2)
    spoilt = [[_at(o, pixel(o), o.location_cam[2] + rng.normal(0, 0.6)) for o in objects] for objects in street()]
    scored = [[replace(o, score=0.1 + 0.02 * rng.random()) for o in objects] for objects in spoilt]
    planted = list(zip(FRAMES, scored, strict=True))
    for module in (diagnosis, evaluating):
        monkeypatch.setattr(module, "predict", lambda *arguments, **options: planted)
    assert run(checkpoint="c.pth") == 0
    keys = [f"general.dataroot={street_kitti}", "tester.checkpoint=c.pth"]
    assert train_val.main(["--config", "tiny.yaml", "--e", "--set", *keys]) == 0
    (path,) = (tmp_path / "outputs/tiny/results").rglob("ap.json")
    ap = json.loads(path.read_text())
    figures = json.loads((tmp_path / "out/oracle.json").read_text())["replaced"]["Car"]
    assert figures["detections"] == 48
    for overlap in ("official", "loose"):
        for metric in ("3d", "bev"):
            assert figures[overlap][metric][ROUNDED] == ap[overlap]["Car"][metric]["R40"]
    assert 0 < figures["official"]["3d"][ROUNDED][1] != figures["official"]["3d"][PREDICTED][1] < 100


def test_ceiling_through_the_command(run, street_kitti, tmp_path, capsys):
    assert run("--ceiling") == 0
    (ceiling,) = json.loads((tmp_path / "out/ceiling.json").read_text())["classes"]
    detections = [[replace(obj, score=1 - 0.01 * k) for k, obj in enumerate(objects)] for objects in street()]
    expected = evaluate_objects(street(), detections, ["Car"])
    assert ceiling["ap"] == [expected.ap("Car", "3d", name) for name in DIFFICULTIES] == [100, 100, 100]
    assert "4 frames, ideal outputs" in capsys.readouterr().out
    assert (tmp_path / "out/missed.csv").read_text() == "frame,line,type,z,reason,overlap,difficulties\n"

    folder = street_kitti / "training"
    path = folder / "label_2" / "000002.txt"
    path.write_text(car(600, 1.5, **TALL).to_label_line() + "\n" + path.read_text())
    (tmp_path / "sizes.csv").write_text("id,width,height\n" + "".join(f"{i},1242,375\n" for i in FRAMES))
    for image in (folder / "image_2").iterdir():
        image.unlink()
    assert run("--ceiling", "--overwrite", labels=folder / "label_2", calib=folder / "calib", sizes="sizes.csv") == 0
    (row,) = csv.DictReader((tmp_path / "out/missed.csv").read_text().splitlines())
    assert tuple(row.values()) == ("000002", "1", "Car", "1.5", "near", "0.0", "easy moderate hard")
    assert REASONS["near"] in (tmp_path / "out/ceiling.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ceiling", "--checkpoint", "c.pth"], "give either --checkpoint, to diagnose a network, or --ceiling"),
        (["--checkpoint", "d.pth"], "no checkpoint 'd.pth'; looked for"),
        (["--checkpoint", "c.pth", "--split", "test"], "split test has no labels"),
        (["--checkpoint", "c.pth", "--max-frames", "-1"], "--max-frames must be >= 1"),
        (["--ceiling", "--labels", "training"], "--labels, --calib and --sizes go together"),
        (["--ceiling", "--labels", "here", "--calib", "here", "--sizes", "none.csv"], "none.csv"),
        (["--ceiling", "--labels", "here", "--calib", "here", "--sizes", "tiny.yaml"], "line 1: expected the header"),
        (["--ceiling", "--labels", "l", "--calib", "l", "--sizes", "wide.csv"], "wide.csv, line 3: expected id,width,"),
        (["--ceiling", "--labels", "l", "--calib", "l", "--sizes", "sizes.csv"], "3 of 4 frames are missing"),
    ],
)
def test_bad_input_is_one_line(run, street_kitti, tmp_path, capsys, arguments, said):
    (tmp_path / "sizes.csv").write_text("id,width,height\n000000,1242,375\n")
    (tmp_path / "wide.csv").write_text("id,width,height\n000000, 1242, 375\n000001,wide,375\n")
    bad = replace(car(600, 20), dimensions=(1.5, -1.6, 3.9))
    (street_kitti / "training/label_2/000001.txt").write_text(bad.to_label_line() + "\n")
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
