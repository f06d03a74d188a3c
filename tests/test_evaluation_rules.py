"""KITTI's rules: the evaluator against its slow twin, each rule by hand, and the tables of a result."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lib.evaluation import DIFFICULTIES, METRIC_TITLES, METRICS, OVERLAPS, RECALLS, evaluate_objects
from tests.evaluation_twin import NAMES, car, random_scene, slow_ap, slow_overlaps


@pytest.mark.parametrize("seed", range(10))
def test_same_as_the_slow_twin(seed: int) -> None:
    labels, detections = random_scene(np.random.default_rng(seed))
    overlaps = slow_overlaps(labels, detections)
    result = evaluate_objects(labels, detections, NAMES)
    for (overlap, cls, metric, difficulty), curve in result.curves.items():
        if curve.n_ground_truth == 0:
            assert all(math.isnan(result.ap(cls, name, difficulty, overlap)) for name in (metric, "aos"))
            continue
        minimum = OVERLAPS[overlap][cls][metric]
        figures = slow_ap(cls, difficulty, metric, minimum, labels, detections, overlaps)
        for recall in RECALLS:
            expected = pytest.approx(figures["precision", recall], abs=1e-9, nan_ok=True)
            assert result.ap(cls, metric, difficulty, overlap, recall) == expected
            if curve.orientation is not None:
                expected = pytest.approx(figures["orientation", recall], abs=1e-9, nan_ok=True)
                assert result.ap(cls, "aos", difficulty, overlap, recall) == expected


# ---- rules one by one ----


def curve_of(labels, detections, cls="Car", metric="bbox", difficulty="moderate", overlap="official"):
    return evaluate_objects([labels], [detections]).curves[overlap, cls, metric, difficulty]


def last(curve) -> tuple[int, int]:
    return int(curve.true_positives[-1]), int(curve.false_positives[-1])


@pytest.mark.parametrize(
    ("height", "gt_valid", "det_valid"),
    [(24.99, [0, 0, 0], [0, 0, 0]), (25.0, [0, 0, 0], [0, 1, 1]), (25.01, [0, 1, 1], [0, 1, 1]),
     (40.0, [0, 1, 1], [1, 1, 1]), (40.01, [1, 1, 1], [1, 1, 1])],
)  # fmt: skip
def test_ground_truth_must_be_above_the_minimum_height_and_detections_may_have_it(height, gt_valid, det_valid) -> None:
    down = car(height=height, score=1)
    x1, y1, x2, y2 = down.bbox_img
    for det in (down, replace(down, bbox_img=(x1, y2, x2, y1))):  # |y1 - y2|
        curves = [curve_of([car(height=height)], [det], difficulty=name) for name in DIFFICULTIES]
        assert [curve.n_ground_truth for curve in curves] == gt_valid
        assert [curve.n_detections for curve in curves] == det_valid


@pytest.mark.parametrize(
    ("changes", "valid"),
    [({"occluded": 0}, [1, 1, 1]), ({"occluded": 1}, [0, 1, 1]), ({"occluded": 2}, [0, 0, 1]),
     ({"occluded": 3}, [0, 0, 0]), ({"truncated": 0.15}, [1, 1, 1]), ({"truncated": 0.3}, [0, 1, 1]),
     ({"truncated": 0.5}, [0, 0, 1]), ({"truncated": 0.51}, [0, 0, 0]), ({"type": "cAR"}, [1, 1, 1]),
     ({"type": "Van"}, [0, 0, 0])],
)  # fmt: skip
def test_difficulty_of_ground_truth(changes: dict, valid: list[int]) -> None:
    curves = [curve_of([car(**changes)], [car(score=1)], difficulty=name) for name in DIFFICULTIES]
    assert [curve.n_ground_truth for curve in curves] == valid
    assert all(curve.false_positives.sum() == 0 for curve in curves)


def test_neighbouring_class_is_neither_right_nor_wrong() -> None:
    labels = [car(0), car(100, type="Van"), car(200, type="Truck")]
    found = [car(0, score=0.5), car(100, score=0.9), car(200, score=0.8)]
    assert last(curve_of(labels, found)) == (1, 1)  # the Truck is wrong, the Van is not
    types = ("Pedestrian", "Person_sitting", "Cyclist")
    labels = [replace(label, type=name) for label, name in zip(labels, types, strict=True)]
    assert last(curve_of(labels, [replace(det, type="pedestrian") for det in found], "Pedestrian")) == (1, 1)


def test_small_detection_of_any_class_absorbs_a_ground_truth() -> None:
    label, other = car(0, height=26), car(100)
    small = car(0, height=24, type="Truck", score=0.9)
    found = car(100, score=0.5)
    curve = curve_of([label, other], [small, found])
    assert last(curve) == (1, 0) and curve.recall[-1] == 1.0  # neither found nor missed
    assert curve_of([label, other], [found]).recall[-1] == 0.5
    # a valid one is preferred though it overlaps less
    curve = curve_of([label, other], [small, car(0, height=34, score=0.5), found])
    assert last(curve) == (2, 0)


@pytest.mark.parametrize("metric", ["bbox", "bev", "3d"])
def test_dont_care_is_measured_over_the_detection_in_all_metrics(metric: str) -> None:
    area = car(100, type="dontCARE", truncated=-1, occluded=-1)
    x1, y1, x2, _ = area.bbox_img
    area = replace(area, bbox_img=(x1, y1, x2, 400), dimensions=(1.5, 8.0, 40.0))
    found = [car(0, score=0.5), car(100, score=0.9)]
    assert last(curve_of([car(0), area], found, metric=metric)) == (1, 0)
    assert last(curve_of([car(0)], found, metric=metric)) == (1, 1)


def test_first_pass_takes_the_best_score_second_the_largest_overlap() -> None:
    label = car(height=60)
    close, confident = car(height=60, alpha=0.0, score=0.4), car(height=70, alpha=math.pi, score=0.8)
    curve = curve_of([label], [close, confident])
    assert curve.thresholds.tolist() == [0.8] and curve.orientation is not None
    assert curve.orientation[0] == pytest.approx(0)  # at 0.8 only the second is there
    both = curve_of([label, car(100)], [close, confident, car(100, score=0.3)])
    assert both.thresholds.tolist() == [0.8, 0.3]
    assert last(both) == (2, 1) and both.orientation[1] == pytest.approx(2 / 3)  # at 0.3 the closer one is taken


def test_no_figure() -> None:
    result = evaluate_objects([[car()]], [[car(score=1, alpha=-10)]])
    assert math.isnan(result.ap("Car", "aos")) and not math.isnan(result.ap("Car", "bbox"))
    assert "aos" not in result.to_json()["official"]["Car"]
    assert result.to_json()["loose"]["Pedestrian"]["3d"]["R40"] == [None] * 3
    flat = car(score=1, dimensions=(-1, -1, -1), location_cam=(-1000, -1000, -1000))
    assert set(evaluate_objects([[car()]], [[flat]]).to_json()["official"]["Car"]) == {"bbox", "aos"}
    no_image = car(score=1, bbox_img=(-1, -1, -1, -1))
    assert "Car" not in evaluate_objects([[car()]], [[no_image]]).to_json()["official"]
    json.dumps(result.to_json(), allow_nan=False)
    with pytest.raises(ValueError, match="difficulty must be one of easy, moderate, hard, got 'medium'"):
        result.ap("Car", "3d", "medium")


def test_distance_bands() -> None:
    labels = [replace(car(0), location_cam=(0, 1.7, z)) for z in (10, 29.99, 30, 60)]
    detections = [replace(label, score=0.9, bbox_img=(5, 100, 85, 150)) for label in labels]
    detections.append(replace(detections[0], bbox_img=(500, 100, 580, 150), location_cam=(20, 1.7, 40), score=0.95))
    frames = [[label] for label in labels] + [[]]
    result = evaluate_objects(frames, [[det] for det in detections], ["Car"], [(0, 30), (30, 50), (50, 70)])
    curves = {name: part.curves["official", "Car", "bbox", "easy"] for name, part in result.by_distance.items()}
    assert {name: curve.n_ground_truth for name, curve in curves.items()} == {"0-30": 2, "30-50": 1, "50-70": 1}
    assert {name: last(curve) for name, curve in curves.items()} == {"0-30": (2, 0), "30-50": (1, 1), "50-70": (1, 0)}
    # across the border: found, though the detection itself lies in the next band
    moved = [[replace(detections[1], location_cam=(0, 1.7, 30.1))]]
    part = evaluate_objects([frames[1]], moved, ["Car"], [(0, 30), (30, 50)]).by_distance
    assert last(part["0-30"].curves["official", "Car", "3d", "easy"]) == (1, 0)
    assert len(part["30-50"].curves["official", "Car", "3d", "easy"].thresholds) == 0


def test_huge_numbers_in_files_are_no_crash_and_no_match() -> None:
    huge = car(score=1, bbox_img=(-1e300, -1e300, 1e300, 1e300), dimensions=(1e300,) * 3)
    huge = replace(huge, location_cam=(-1e308, 0, 1e308))
    result = evaluate_objects([[car(), replace(huge, score=None)]], [[huge, car(score=0.5)]], NAMES, [(0, 30)])
    for metric in ("bbox", "bev", "3d"):
        assert last(result.curves["official", "Car", metric, "easy"]) == (1, 1)


def test_tables_contain_the_results() -> None:
    near, far = car(location_cam=(0, 1.7, 20.0)), car(200, location_cam=(20, 1.7, 40.0))
    dets = [replace(near, score=0.9), replace(far, score=0.8)]
    result = evaluate_objects([[near, far]], [dets], NAMES, [(0, 30), (30, 50), (50, 70)])
    header, counts, *rows = result.rows("Car")
    assert header[2:] == list(DIFFICULTIES) and counts[2:] == ["2", "2", "2"]
    shown = [*(("official", metric) for metric in METRICS), ("loose", "bev"), ("loose", "3d")]
    for (title, minimum, *cells), (overlap, metric) in zip(rows, shown, strict=True):
        assert (title, minimum) == (METRIC_TITLES[metric], f"{overlap} {'0.50' if overlap == 'loose' else '0.70'}")
        assert cells == [f"{result.ap('Car', metric, name, overlap):.2f}" for name in DIFFICULTIES]
    header, *bands = result.distance_rows("Car")
    assert header == ["depth [m]", "ground truth", "2D", "AOS", "BEV", "3D", "BEV loose", "3D loose"]
    assert [band[:2] for band in bands] == [["0-30", "1"], ["30-50", "1"], ["50-70", "0"]]
    assert bands[0][5] == f"{result.by_distance['0-30'].ap('Car', '3d'):.2f}" and bands[2][2:] == ["-"] * 6
    assert result.never_detected == ("Pedestrian", "Cyclist")
    assert all(cell == "-" for row in result.rows("Cyclist")[2:] for cell in row[2:])
    blocks = result.table().split("\n\nDepth ")[0].split("\n\n")[1:]
    blocks, notes = blocks[:-1], blocks[-1].splitlines()
    assert len(notes) == 5 and "Car: with so few objects no result can have an AP40 of more than 2.50" in notes[0]
    assert notes[2] == "note: Cyclist: no label is of this class; types found: 'Car' 2"
    assert [block.split()[0] for block in blocks] == list(NAMES) and [len(b.splitlines()) for b in blocks] == [11, 1, 1]
