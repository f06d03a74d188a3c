"""The census of a split before a training, and what a training and tools/check_dataset.py make of it."""

import math
from collections import Counter
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lib.config import Dataset
from lib.datasets.augmentation import Augmentation
from lib.datasets.kitti import KITTI
from lib.datasets.targets import encode_targets
from lib.pipeline import run as pipeline_run
from lib.preparation.census import TRAINED, take_census
from lib.structures import Calibration, Object3d
from tests.conftest import CALIB
from tools import check_dataset, train_val

CAMERA, SIZE = Calibration(np.array(CALIB.split()[1:], float)), (1242, 375)
OWN = {"class_names": ("Car", "Forklift"), "writelist": ("Car", "Forklift")}
SETTINGS = ["model.backbone=dla34_narrow", "model.pretrained=false", "trainer.gpu_ids=[]", "trainer.max_epoch=1"]
SETTINGS += ["dataset.num_workers=0", "dataset.batch_size=2", "dataset.resolution=[128, 64]", "trainer.report=false"]


def solid(x=0.0, z=20.0, turn=0.4, kind="Car", size=(1.5, 1.7, 4.2), **changes):
    """An object on the road, seen without truncation, whose columns agree."""
    obj = Object3d(kind, 0.0, 0, 0.0, (0, 0, 0, 0), size, (x, 1.7, z), turn)
    corners = CAMERA.project(obj.corners_cam())
    (x1, y1), (x2, y2) = corners.min(0).tolist(), corners.max(0).tolist()
    alpha = (turn - math.atan2(x, z) + math.pi) % (2 * math.pi) - math.pi
    box = (max(x1, 0), max(y1, 0), min(x2, SIZE[0]), min(y2, SIZE[1]))
    return replace(obj, **{"alpha": alpha, "bbox_img": box, **changes})


def line(obj, *more):
    """With all decimals, so that nothing is lost by rounding."""
    rest = (*obj.bbox_img, *obj.dimensions, *obj.location_cam, obj.rotation_y)
    return " ".join(map(str, (obj.type, obj.truncated, obj.occluded, obj.alpha, *rest, *more))) + "\n"


def grow(root, train, val=None):
    """A KITTI tree with black images; ``train``, ``val``: for each frame its objects or lines. Returns ``root``."""
    for name in ("image_2", "calib", "label_2"):
        (root / "training" / name).mkdir(parents=True)
    (root / "ImageSets").mkdir()
    for split, frames in (("train", train), ("val", train if val is None else val)):
        for number, objects in enumerate(frames):
            path = f"{split}-{number}"
            cv2.imwrite(str(root / f"training/image_2/{path}.png"), np.zeros((*SIZE[::-1], 3), np.uint8))
            (root / f"training/calib/{path}.txt").write_text(CALIB)
            text = "".join(o if isinstance(o, str) else line(o) for o in objects)
            (root / f"training/label_2/{path}.txt").write_text(text)
        (root / f"ImageSets/{split}.txt").write_text("".join(f"{split}-{k}\n" for k in range(len(frames))))
    return root


def start(root, folder, monkeypatch, *changes):
    """Prepare a training of one epoch of ``root`` in ``folder`` and start it."""
    monkeypatch.chdir(folder)
    (folder / "mine.yaml").write_text(f"general: {{dataroot: '{root}'}}\n")
    return train_val.main(["--config", "mine.yaml", "--set", *SETTINGS, *changes])


LOST = {
    "nearer than 2 m (dataset.min_depth)": solid(location_cam=(0, 0.9, 1.9)),
    "beyond 65 m (dataset.max_depth)": solid(location_cam=(0, 1.7, 65.1)),
    "outside the network input": solid(location_cam=(-30, 1.7, 20)),
    "lower than 25 px": solid(bbox_img=(600, 180, 640, 203)),
    "truncated more than 0.5": solid(truncated=0.51),
    "occluded more than 2": solid(occluded=3),
    "without a 2D box (x2 > x1, y2 > y1)": solid(bbox_img=(0, 0, 0, 0)),
    "without a 3D size": solid(size=(-1, -1, -1), bbox_img=(600, 180, 640, 240)),
}
"""a label that is not trained on, for each reason but its line"""


def test_each_label_is_counted_by_what_becomes_of_it():
    objects = [*LOST.values(), solid(kind="Van"), *[solid(kind="Misc")] * 40, *[solid()] * 3]
    census = take_census("train", [(SIZE, CAMERA, objects), (SIZE, CAMERA, [solid(kind="Forklift")])], Dataset(**OWN))
    late = "after line 50 (dataset.max_objects)"
    assert census.counts == {"Car": dict.fromkeys(LOST, 1) | {TRAINED: 1, late: 2}, "Forklift": {TRAINED: 1}}
    assert census.other_types == {"Van": 1, "Misc": 40}
    summary = census.summary()
    assert "Car: 1 of 11 labels are trained on (left out: 2 after line 50" in summary and "Misc 40, Van 1" in summary


@pytest.mark.parametrize(
    ("key", "value", "lost"),
    [("min_depth", 1.9, "nearer than 2 m"), ("max_depth", 65.1, "beyond 65 m"), ("max_objects", 51, "after line 50")],
)
def test_the_limits_are_keys(key, value, lost):
    objects = [next((obj for reason, obj in LOST.items() if lost in reason), solid())] * 51
    (official, changed) = (
        take_census("train", [(SIZE, CAMERA, objects)], Dataset(**keys)).counts["Car"] for keys in ({}, {key: value})
    )
    assert official[TRAINED] < changed[TRAINED] and any(reason.startswith(lost) for reason in official)


def test_the_census_counts_what_the_targets_hold():
    rng, seen = np.random.default_rng(1), Counter()
    for _ in range(150):
        z = rng.uniform(0.5, 80, rng.integers(0, 12))
        kinds = rng.choice(["Car", "Van", "Forklift", "DontCare"], len(z))
        objects = [
            solid(rng.uniform(-1, 1) * d, d + 3, rng.uniform(-3, 3), kind, location_cam=(rng.uniform(-1, 1) * d, 2, d))
            for d, kind in zip(z.tolist(), kinds.tolist(), strict=True)
        ]
        objects = [replace(o, truncated=rng.uniform(0, 0.6), occluded=int(rng.integers(0, 4))) for o in objects]
        keys = {
            "min_depth": rng.uniform(0, 9),
            "max_depth": rng.uniform(9, 80),
            "max_objects": int(rng.integers(1, 12)),
        }
        keys |= {key: bool(rng.integers(2)) for key in ("use_3d_center", "class_merging")}
        config = Dataset(**OWN, **keys, bbox2d_type=str(rng.choice(["anno", "proj"])))
        census = take_census("train", [(SIZE, CAMERA, objects)], config)
        mask = encode_targets(objects, CAMERA, Augmentation.identity(SIZE), config)["mask_2d"]
        trained = Counter(objects[slot].type for slot in np.flatnonzero(mask))
        assert [census.counts[name][TRAINED] for name in config.writelist] == [trained[n] for n in config.writelist]
        assert census.types_found() == Counter(o.type for o in objects)
        seen.update(reason for counts in census.counts.values() for reason in counts.elements())
    assert len({reason.split("(")[0].rstrip("0123456789. m") for reason in seen}) >= 7 and seen[TRAINED] > 50


@pytest.mark.parametrize(("far", "low", "warned"), [(1, 7, False), (2, 0, True), (0, 8, True)])
def test_the_log_has_the_census_and_warns_above_the_limits(tmp_path, monkeypatch, capsys, far, low, warned):
    """Of 10 labels one beyond the largest depth, or seven too low, are still usual."""
    monkeypatch.setattr(pipeline_run, "train_and_evaluate", lambda *arguments: None)
    depths = [66 + k for k in range(far)] + [50 + k for k in range(low)] + [10 + k for k in range(10 - far - low)]
    cars = [solid(z=z, size=(3.0, 1.7, 4.2) if z > 65 else (1.5, 1.7, 4.2)) for z in depths]
    root = grow(tmp_path / "set", [cars, [solid(kind="Van")]])
    assert start(root, tmp_path, monkeypatch) == 0
    said = capsys.readouterr().out
    census = take_census("train", KITTI(root, "train").labelled_images(), Dataset())
    text = f"labels of split train: {census.summary()}"
    assert [row for row in said.splitlines() if "labels of split" in row] == ["warning: " * warned + text]
    assert f"Car: {10 - far - low} of 10 labels are trained on" in text and text.endswith("other types: Van 1")
    assert check_dataset.main(["--dataroot", str(root), "--config", "mine.yaml"]) == 0
    assert f"\n{census.table()}\n" in capsys.readouterr().out


def test_a_class_that_is_not_trained_on_ends_the_run_before_it_starts(tmp_path, monkeypatch, capsys):
    root = grow(tmp_path / "set", [[solid(), solid(kind="pallet"), solid(kind="Van"), LOST["occluded more than 2"]]])
    classes = "=[Car, Pallet, Crane]"
    assert start(root, tmp_path, monkeypatch, f"dataset.class_names{classes}", f"dataset.writelist{classes}") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "not one object of Crane in split 'train' is trained on (dataset.writelist); 0 labels: none" in said
    assert said.endswith("types found: 'Car' 2, 'Pallet' 1, 'Van' 1") and not (tmp_path / "outputs").exists()
    own = ["--types", "Pallet", "Crane"]
    assert check_dataset.main(["--dataroot", str(root), *own]) == 0  # a class that is missing need not be wrong


def test_frames_that_cannot_be_read_are_named_where_nothing_is_trained(tmp_path, monkeypatch, capsys):
    root = grow(tmp_path / "set", [[solid()]])
    (root / "training/label_2/train-0.txt").write_bytes(line(solid()).encode("utf-16"))
    assert start(root, tmp_path, monkeypatch, "dataset.on_bad_frame=skip") == 2
    said = capsys.readouterr().err
    assert "not one object of Car" in said and "unreadable: 1 frame, the first: " in said and "UTF-16" in said


def test_a_class_without_a_label_to_evaluate_has_no_figure(tmp_path, monkeypatch, capsys):
    root = grow(tmp_path / "set", [[solid()], [solid(kind="Forklift")]], [[solid()], [solid(z=30)]])
    names = "=[Car, Forklift]"
    changes = [f"dataset.class_names{names}", f"dataset.writelist{names}", "tester.threshold=0", "tester.topk=400"]
    changes += ["dataset.meanshape=true", "dataset.mean_sizes={Forklift: [2, 1.5, 3]}"]  # untrained sizes are positive
    assert start(root, tmp_path, monkeypatch, *changes) == 0
    said = capsys.readouterr().out
    rows = [row.split()[1:] for row in said.splitlines() if row.startswith("Forklift ") and row[-1] in "-0123456789"]
    without = [["3D", "official", "0.50", *"---"], ["3D", "loose", "0.25", *"---"]]
    assert rows == [["ground", "truth", "0", "0", "0"], *without]  # other rows without a figure are left out
    assert "Forklift: no label is of this class; types found: 'Car' 2" in said
