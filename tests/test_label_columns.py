"""Columns of labels: an unknown alpha, contradictions and their cause, and type names in any case."""

import csv
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

import make_obj_depth
from lib.config import Dataset
from lib.datasets.augmentation import Augmentation
from lib.datasets.consistency import CAUSES, check_consistency
from lib.datasets.kitti import KITTI
from lib.datasets.targets import encode_targets
from lib.evaluation import evaluate_kitti
from lib.structures import Calibration, read_objects
from tests.conftest import SHARED_KITTI
from tests.test_label_checks import CAMERA, OWN, SIZE, grow, line, solid
from tools import check_dataset, diagnose

STREET = [[solid(-6 + 3 * k, 14 + 5 * k, -2.9 + 0.5 * (4 * n + k)) for k in range(4)] for n in range(3)]


# ---- angles ----


def targets(root):
    images = KITTI(root, "train").labelled_images()
    return [encode_targets(objects, camera, Augmentation.identity(size), Dataset()) for size, camera, objects in images]


def ceiling(root, folder, monkeypatch, *more, **keys):
    monkeypatch.chdir(folder)
    (folder / "ceiling.yaml").write_text(json.dumps({"general": {"dataroot": str(root)}, "dataset": keys}))
    out = folder / f"out-{len(list(folder.iterdir()))}"
    assert diagnose.main(["--ceiling", "--config", "ceiling.yaml", "--split", "train", "--out", str(out), *more]) == 0
    return (out / "ceiling.json").read_text()


def folders(root):
    """Options of tools/diagnose.py that read the labels of ``root`` without its images."""
    ids = (root / "ImageSets/train.txt").read_text().split()
    (root / "sizes.csv").write_text("id,width,height\n" + "".join(f"{i},{SIZE[0]},{SIZE[1]}\n" for i in ids))
    paths = {"labels": "training/label_2", "calib": "training/calib", "sizes": "sizes.csv"}
    return [word for key, path in paths.items() for word in (f"--{key}", str(root / path))]


@pytest.mark.parametrize("unknown", [-10, 0])
def test_an_unknown_alpha_is_taken_from_rotation_y_and_the_position(tmp_path, monkeypatch, caplog, unknown):
    right = grow(tmp_path / "right", STREET)
    best = ceiling(right, tmp_path, monkeypatch)
    assert json.loads(best)["classes"][0]["ap"][2] > 25 and "is taken from" not in caplog.text
    without = grow(tmp_path / "without", [[replace(o, alpha=unknown) for o in objects] for objects in STREET])
    for got, expected in zip(targets(without), targets(right), strict=True):
        assert expected["mask_3d"].sum() == 4
        assert all(np.allclose(got[name], expected[name], atol=1e-6) for name in expected)
    assert "split train: alpha of 12 labels is taken from rotation_y" in caplog.text
    assert ceiling(without, tmp_path, monkeypatch) == best
    assert ceiling(right, tmp_path, monkeypatch, *folders(without)) == best


def test_an_alpha_of_0_among_others_is_a_heading(tmp_path, caplog):
    first, *others = STREET[0]
    for alphas in ([0, 0, 0], [0.5, 0, 0]):  # the first label's is the right one, never 0
        labels = [first, *(replace(o, alpha=a) for o, a in zip(others, alphas, strict=True))]
        ((_, objects),) = KITTI(grow(tmp_path / str(alphas), [labels]), "train").annotations
        assert [o.alpha for o in objects] == [first.alpha, *alphas]
    caplog.clear()
    ahead = [solid(x, z, math.atan2(x, z), alpha=0) for x, z in ((-3, 12), (0, 15), (2, 20))]
    ((_, objects),) = KITTI(grow(tmp_path / "ahead", [ahead]), "train").annotations
    assert [o.alpha for o in objects] == [0, 0, 0] and not caplog.text


def test_a_16th_column_is_said_at_the_start(tmp_path, caplog):
    root = grow(tmp_path / "set", [[line(solid(), 0.25), line(solid(z=30)), line(solid(z=40), 1)]])
    assert len(KITTI(root, "train").annotation(0)[1]) == 3
    assert "label_2, split train: the 16th column, a score, of 2 labels is not used" in caplog.text


# ---- columns against each other ----


def written_as(text):
    """The change of a converter, from consistent columns to those that ``text``, a key of CAUSES, describes."""
    order = re.match(r"dimensions are written as (\w+), (\w+), (\w+) ", text)
    if order:
        names = ("height", "width", "length")
        return lambda o: replace(o, dimensions=tuple(o.dimensions[names.index(name)] for name in order.groups()))
    return next(change for start, change in WRITTEN.items() if text.startswith(start))


def raise_to_centre(obj):
    x, y, z = obj.location_cam
    return replace(obj, location_cam=(x, y - obj.dimensions[0] / 2, z))


WRITTEN = {
    "angles are in degrees": lambda o: replace(o, alpha=math.degrees(o.alpha), rotation_y=math.degrees(o.rotation_y)),
    "rotation_y is a yaw about the upward axis": lambda o: replace(o, rotation_y=-math.pi / 2 - o.rotation_y),
    "rotation_y has the opposite sign": lambda o: replace(o, rotation_y=-o.rotation_y),
    "rotation_y is half a turn off": lambda o: replace(o, rotation_y=o.rotation_y - math.pi),
    "rotation_y has another zero": lambda o: replace(o, rotation_y=o.rotation_y - math.pi / 2),
    "y is the centre of the box": raise_to_centre,
    "alpha is the same in all labels": lambda o: replace(o, alpha=1.2),
    "alpha is a copy of rotation_y": lambda o: replace(o, alpha=o.rotation_y),
    "alpha has the opposite sign": lambda o: replace(o, alpha=-o.alpha),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_what_a_converter_does_differently_is_named(cause, tmp_path, capsys, caplog):
    rng = np.random.default_rng(3)
    trucks = [
        solid(z * rng.uniform(-0.25, 0.25), z, rng.uniform(-3.1, 3.1), "Car", (3.0, 1.2, 6.5))
        for z in rng.uniform(12, 40, 60).tolist()
    ]
    sound = check_consistency((SIZE, CAMERA, obj) for obj in trucks)
    assert (sound.labels, sound.describe(), sound.systematic) == (60, "", False)
    wrong = [written_as(cause)(obj) for obj in trucks]
    assert check_consistency((SIZE, CAMERA, obj) for obj in wrong).cause == cause
    root = grow(tmp_path / "set", [wrong])
    assert check_dataset.main(["--dataroot", str(root)]) == 1
    said = capsys.readouterr().out
    assert "columns contradict each other: 2" in said and f"; likely cause: {cause}\n" in said
    KITTI(root, "train")
    replaced = "alpha of 60 labels is taken from rotation_y and the position, since it is 1.2 in all of them"
    assert (replaced if cause.startswith("alpha is the same") else f"likely cause: {cause}") in caplog.text


@pytest.mark.parametrize("seed", range(3))
def test_angles_without_meaning_have_none_of_the_usual_causes(seed):
    rng = np.random.default_rng(seed)
    cars = [solid(rng.uniform(-3, 3), 12 + k, rng.uniform(-3, 3)) for k in range(60)]
    for change in ({"rotation_y": None}, {"alpha": None}, {"location_cam": None}):
        (name,) = change
        value = {"location_cam": lambda: (0.0, 1.7, rng.uniform(5, 60))}.get(name, lambda: rng.uniform(-3, 3))
        wrong = [replace(obj, **{name: value()}) for obj in cars]
        assert check_consistency((SIZE, CAMERA, obj) for obj in wrong).cause.startswith("none of the usual ones")


def test_a_few_contradictions_are_only_counted(tmp_path, capsys, caplog):
    objects = [solid(z=10 + k) for k in range(50)]
    objects[7:11] = [replace(obj, alpha=obj.alpha + 0.2) for obj in objects[7:11]]
    root = grow(tmp_path / "set", [objects[:5], objects[5:]], [])
    (root / "ImageSets/val.txt").unlink()
    assert check_dataset.main(["--dataroot", str(root)]) == 0
    said = capsys.readouterr().out
    assert "split train: alpha is not rotation_y - atan2(x, z) in 4 of 50 labels; the first in train-1.txt" in said
    KITTI(root, "train")
    assert not caplog.text


@pytest.mark.kitti
def test_real_labels_hardly_contradict_themselves(real_labels):
    with (SHARED_KITTI / "image_sizes.csv").open() as file:
        sizes = {row["id"]: (int(row["width"]), int(row["height"])) for row in csv.DictReader(file)}
    labels = []
    for path in sorted((real_labels / "label_2").iterdir()):
        camera = Calibration.from_file(real_labels / "calib" / path.name)
        labels += [(sizes[path.stem], camera, obj) for obj in read_objects(path)]
    found = check_consistency(labels)
    assert (len(found.alpha), found.labels, len(found.box), found.compared_boxes) == (13, 40570, 191, 35179)
    assert not found.systematic and not found.cause


# ---- names ----


def test_names_in_any_case_are_the_same_classes(tmp_path, monkeypatch, capsys):
    kinds = {"Car": "car", "Forklift": "FORKlift", "Van": "VAN", "DontCare": "dontcare"}
    frames = [[replace(o, type=kind) for o, kind in zip(objects, kinds, strict=True)] for objects in STREET]
    odd_frames = [[replace(o, type=kinds[o.type]) for o in objects] for objects in frames]
    right, odd = grow(tmp_path / "right", frames), grow(tmp_path / "odd", odd_frames)
    read, expected = (KITTI(root, "train", class_names=OWN["class_names"]).annotations for root in (odd, right))
    assert [objects for _, objects in read] == [objects for _, objects in expected]
    for root in (right, odd):
        assert make_obj_depth.main(["--dataroot", str(root)]) == 0
        assert check_dataset.main(["--dataroot", str(root), "--types", "Forklift"]) == 0
    tables = capsys.readouterr().out.split("split train")[1:]
    assert len(tables) == 2 and tables[0].split("nothing is wrong")[0] == tables[1].split("nothing is wrong")[0]
    maps = sorted(path.relative_to(right) for path in right.glob("training/obj_depth*/*"))
    assert len(maps) == 12 and all((odd / path).read_bytes() == (right / path).read_bytes() for path in maps)
    assert {np.load(right / path).any() for path in maps} == {True}
    (tmp_path / "results").mkdir()
    for path in (right / "training/label_2").iterdir():
        (tmp_path / "results" / path.name).write_text("".join(f"{row} 0.9\n" for row in path.read_text().splitlines()))
    tables = [
        evaluate_kitti(root / "training/label_2", tmp_path / "results", None, OWN["class_names"]).table()
        for root in (right, odd)
    ]
    assert tables[0] == tables[1] and "Forklift" in tables[0]
    best = ceiling(right, tmp_path, monkeypatch, **OWN)
    assert [(c["class"], c["ground_truth"]) for c in json.loads(best)["classes"]] == [
        ("Car", [3] * 3),
        ("Forklift", [3] * 3),
    ]
    assert ceiling(odd, tmp_path, monkeypatch, **OWN) == best
    assert ceiling(right, tmp_path, monkeypatch, *folders(odd), **OWN) == best
