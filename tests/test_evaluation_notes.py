"""Figures that cannot be are not printed: '-' with its reason, in the table, in JSON and in notes."""

import math
from dataclasses import replace

import pytest

from lib.evaluation import DIFFICULTIES, METRICS, evaluate_objects
from tests.evaluation_twin import car
from tools.evaluate_kitti import main


def evaluate(labels, detections=None, classes=("Car",), **options):
    """Labels in one frame, detected perfectly unless ``detections`` are given."""
    found = [replace(o, score=1 - k / 1000) for k, o in enumerate(labels)] if detections is None else detections
    return evaluate_objects([labels], [found], classes, **options)


def cells_of(result, title="3D"):
    return [line.split()[4:] for line in result.table().splitlines() if f" {title} " in line and "official" in line]


@pytest.mark.parametrize("n", [1, 2, 13, 40, 41, 42, 60])
def test_few_objects_bound_the_ap(n):
    result = evaluate([car(100 * k) for k in range(n)])
    bound = min(100.0, 100 * (n - 1) / 40)
    assert all(result.ap("Car", metric) == pytest.approx(bound) for metric in METRICS)
    said = [note for note in result.notes if f"{bound:.2f} at moderate ({n} object{'s'[: n > 1]})" in note]
    assert len(said) == (n < 41)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bbox_img": (-1, -1, -1, -1)}, "2 without a 2D box"),
        ({"truncated": 0.9}, "2 truncated more than 0.5"),
        ({"occluded": 3}, "2 occluded 3"),
    ],
)
def test_without_ground_truth_there_is_no_ap(change, reason):
    labels = [car(**change), car(100, **change)]
    result = evaluate(labels, [car(score=1), car(100, score=1)])
    assert f"Car: all labels (2) are ignored: {reason}" in result.notes
    assert all(math.isnan(result.ap("Car", metric, name)) for metric in METRICS for name in DIFFICULTIES)
    assert "no ground truth that counts, so there is no AP" in result.table() and cells_of(result) == []
    tree = result.to_json()
    assert tree["official"]["Car"]["3d"]["R40"] == [None] * 3 and tree["notes"] == list(result.notes)
    assert all(cell == "-" for row in result.rows("Car")[2:] for cell in row[2:])


def test_a_difficulty_without_ground_truth_has_no_ap_and_the_others_have():
    result = evaluate([car(100 * k, occluded=1) for k in range(3)])
    assert "Car: no label counts at easy" in result.notes
    assert cells_of(result) == [["-", "5.00", "5.00", "-", "9.09", "9.09", "-", "100.00", "100.00"]]


def test_a_class_without_labels_names_the_types_that_were_found():
    result = evaluate([car(type="Car:"), car(100, type="Van"), car(200, type="0")], [car(score=1)], ["Car", "Pallet"])
    said = "no label is of this class; types found: 'Van' 1, 'Car:' 1, '0' 1"
    assert f"Car: {said}" in result.notes and f"Pallet: {said}" in result.notes


def test_an_unknown_alpha_of_a_label_has_no_orientation():
    labels = [car(100 * k, alpha=-10.0 * (k == 1)) for k in range(3)]
    result = evaluate(labels, [replace(o, alpha=0.0, score=1) for o in labels])
    assert cells_of(result, "AOS") == [["-"] * 9] and cells_of(result) != [["-"] * 9]
    assert "Car: AOS is not computed, since alpha of 1 label is -10, unknown" in result.notes
    stuff = car(500, type="DontCare", alpha=-10.0)  # as in all of KITTI's labels
    assert cells_of(evaluate([car(), car(100), stuff], [car(score=1)]), "AOS") != [["-"] * 9]


def test_a_class_that_was_never_detected_has_an_ap_of_0():
    result = evaluate([car(100 * k) for k in range(41)], [])
    assert result.never_detected == ("Car",) and cells_of(result) == [["0.00"] * 9]
    assert result.to_json()["official"]["Car"]["3d"]["R40"] == [0.0, 0.0, 0.0]
    assert "Car: no detection is of this class, so AP is 0 where ground truth counts" in result.notes


def test_detections_without_a_2d_box_are_ignored():
    labels = [car(100 * k) for k in range(3)]
    result = evaluate(labels, [replace(o, bbox_img=(-1, -1, -1, -1), score=1) for o in labels])
    assert result.never_detected == ("Car",)
    assert "Car: all detections (3) are ignored: lower than 25 px, or without a 2D box" in result.notes


def test_angles_in_degrees_are_named_with_their_file(tmp_path, capsys):
    line = "Car 0.00 0 {a} 100.00 100.00 200.00 160.00 1.50 1.60 4.00 0.00 1.70 20.00 {a}{score}\n"
    for folder, score in (("label_2", ""), ("data", " 0.9")):
        (tmp_path / folder).mkdir()
        for frame in ("a-1", "b_2", "000003"):
            degrees = (folder, frame) in {("label_2", "b_2"), ("data", "000003")}
            (tmp_path / folder / f"{frame}.txt").write_text(line.format(a=-90 if degrees else -1.57, score=score))
    assert main(["--labels", str(tmp_path / "label_2"), "--results", str(tmp_path / "data")]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 frames")  # ids with letters too
    assert "note: 1 of 3 labels have an angle beyond 2 pi, the first in b_2.txt: are they in degrees?" in said
    assert "note: 1 of 3 detections have an angle beyond 4 pi, the first in 000003.txt" in said


def test_the_kitti_classes_of_a_sound_evaluation_have_no_notes():
    labels = [car(100 * k, type=name, alpha=0.5) for name in ("Car", "Pedestrian", "Cyclist") for k in range(41)]
    frames = [[obj] for obj in labels]
    result = evaluate_objects(frames, [[replace(o, score=1.0)] for (o,) in frames], ["car", "PEDESTRIAN", "Cyclist"])
    assert result.notes == () and result.classes == ("Car", "Pedestrian", "Cyclist")
