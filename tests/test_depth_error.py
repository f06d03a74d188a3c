"""Depth errors against a plain second implementation, and rule by rule."""

import json
import math
import statistics
from dataclasses import replace

import numpy as np
import pytest

from lib.analysis.depth_error import DEPTH_BANDS, depth_errors, match_in_image, resample_depth_errors
from lib.evaluation import Annotations, type_names_for
from lib.evaluation.bootstrap import Draws
from tests.evaluation_twin import NAMES, car, random_scene


def flat(labels, detections, names=()):
    known = type_names_for(names)
    return Annotations.from_objects(labels, False, known), Annotations.from_objects(detections, True, known)


def iou(a, b):
    """2D, of (x1, y1, x2, y2)."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (both - width * height)


def slow_pairs(labels, detections, cls):
    """-> (z of ground truth, z of its detection or None) of all ground truth that counts, detection by detection."""
    neighbour = {"Car": "van", "Pedestrian": "person_sitting"}.get(cls)
    pairs = []
    for gts, dets in zip(labels, detections, strict=True):
        found = {}
        own = [j for j, d in enumerate(dets) if d.type.lower() == cls.lower() and d.location_cam[2] != -1000]
        for j in sorted(own, key=lambda j: (-dets[j].score, j)):
            free = [i for i, g in enumerate(gts) if i not in found and g.type.lower() in (cls.lower(), neighbour)]
            close = [(iou(gts[i].bbox_img, dets[j].bbox_img), -i) for i in free]
            if close and max(close)[0] >= 0.5:
                found[-max(close)[1]] = dets[j].location_cam[2]
        for i, gt in enumerate(gts):
            counts = gt.type.lower() == cls.lower() and gt.occluded <= 2 and gt.truncated <= 0.5
            if counts and gt.bbox_img[3] - gt.bbox_img[1] > 25 and gt.location_cam[2] > 0:
                pairs.append((gt.location_cam[2], found.get(i)))
    return pairs


def spread(labels, detections, rng):
    """Random scenes with depths from 1 to 80 m, a few without."""

    def move(obj, z):
        return replace(obj, location_cam=(*obj.location_cam[:2], z))

    def depth():
        return -1000.0 if rng.random() < 0.1 else round(float(rng.uniform(1, 80)), 2)

    return [[[move(obj, depth()) for obj in frame] for frame in frames] for frames in (labels, detections)]


@pytest.mark.parametrize("seed", range(12))
def test_same_as_a_plain_second_implementation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scenes = [random_scene(rng) for _ in range(20)]
    labels, detections = spread([f for s in scenes for f in s[0]], [f for s in scenes for f in s[1]], rng)
    seen = 0
    for cls in NAMES:
        pairs = slow_pairs(labels, detections, cls)
        errors = depth_errors(*flat(labels, detections), cls)
        assert [(band.near, band.far) for band in errors.bands] == list(DEPTH_BANDS)
        for band in (*errors.bands, errors.total):
            inside = [(z, found) for z, found in pairs if band.near <= z < band.far]
            e = [found - z for z, found in inside if found is not None]
            relative = [abs(found - z) / z for z, found in inside if found is not None]
            assert (band.ground_truth, band.found) == (len(inside), len(e))
            seen += len(e)
            if not e:
                assert math.isnan(band.median_absolute) and math.isnan(band.mean_relative)
                continue
            assert band.recall == pytest.approx(len(e) / len(inside))
            assert band.median_absolute == pytest.approx(statistics.median(map(abs, e)))
            assert band.mean_absolute == pytest.approx(statistics.fmean(map(abs, e)))
            assert band.median_signed == pytest.approx(statistics.median(e))
            assert band.mean_signed == pytest.approx(statistics.fmean(e))
            assert band.mean_relative == pytest.approx(statistics.fmean(relative))
    assert seen > 20


def test_replicates_are_the_errors_of_the_drawn_frames() -> None:
    rng, none = np.random.default_rng(0), 0
    scenes = [random_scene(rng) for _ in range(12)]
    labels, detections = spread([f for s in scenes for f in s[0]], [f for s in scenes for f in s[1]], rng)
    of_frame = np.arange(len(labels)) // 3  # clusters of three frames
    number = int(of_frame[-1]) + 1
    rare = [np.bincount(clusters, minlength=number) for clusters in rng.integers(0, number, (5, 2))]  # few objects
    weights = np.stack([*rng.multinomial(number, np.full(number, 1 / number), 30), *rare])
    for cls in NAMES:
        medians, recalls = resample_depth_errors(*flat(labels, detections), cls, Draws(of_frame, weights))
        for row, median, recall in zip(weights, medians, recalls, strict=True):
            frames = np.repeat(np.arange(len(labels)), row[of_frame])
            drawn = depth_errors(*flat([labels[f] for f in frames], [detections[f] for f in frames]), cls).total
            assert (median, recall) == pytest.approx((drawn.median_absolute, drawn.recall), rel=1e-12, nan_ok=True)
            none += math.isnan(median)
    assert 0 < none < 90


def at(z, x=0.0, score=None, **changes):
    return car(x, score=score, location_cam=(x / 10, 1.7, z), **changes)


def total(labels, detections, cls="Car"):
    return depth_errors(*flat([labels], [detections]), cls).total


def test_the_best_score_takes_first_and_takes_what_it_overlaps_most() -> None:
    two = [at(20.0), at(30.0, x=10)]  # 2D boxes of 80 px, 10 px apart
    assert match_in_image(*flat([two], [[at(33.0, x=8, score=0.9), at(21.0, x=9, score=0.8)]]), "Car") == {1: 0, 0: 1}
    assert match_in_image(*flat([two], [[at(33.0, x=8, score=0.8), at(21.0, x=9, score=0.9)]]), "Car") == {1: 1, 0: 0}
    error = total(two, [at(21.0, score=0.9)])
    assert (error.ground_truth, error.found, error.recall, error.median_signed) == (2, 1, 0.5, 1.0)


def test_who_counts() -> None:
    assert (total([at(20.0)], [at(18.0, score=0.5)]).mean_signed) == -2.0
    for harder in ({"occluded": 3}, {"truncated": 0.51}, {"height": 25}):  # no harder than hard
        error = total([at(20.0, **harder)], [at(18.0, score=0.5, height=harder.get("height", 50))])
        assert (error.ground_truth, error.found) == (0, 0) and math.isnan(error.recall)
    van, car_beside = at(25.0, type="Van"), at(20.0, x=10)
    error = total([van, car_beside], [at(25.5, score=0.9)])  # it is the van's, and the car is missed
    assert (error.ground_truth, error.found) == (1, 0)
    stuff = replace(at(20.0), type="DontCare", dimensions=(-1, -1, -1), location_cam=(-1000, -1000, -1000))
    assert total([stuff, at(20.0)], [at(21.0, score=0.5)]).mean_signed == 1.0
    assert total([at(20.0)], [at(18.0, score=0.5, type="Van")]).found == 0  # a detection of another class
    assert total([at(20.0)], [at(-1000.0, score=0.9), at(21.0, score=0.5)]).mean_signed == 1.0
    assert total([at(-1000.0)], [at(21.0, score=0.5)]).ground_truth == 0
    assert total([at(85.0)], [at(86.0, score=0.5)]).found == 1  # beyond all bands


@pytest.mark.parametrize(("x", "found"), [(0, 1), (26.6, 1), (26.7, 0), (-26.6, 1)])
def test_least_overlap_in_the_image(x: float, found: int) -> None:
    """Boxes of 80 px that are moved by 80 / 3 have an intersection over union of exactly 1/2."""
    assert total([at(20.0, x=100)], [at(21.0, x=100 + x, score=0.5)]).found == found
    half = replace(at(21.0, score=0.5), bbox_img=(0, 100, 40, 150))
    assert total([at(20.0)], [half]).found == 1


def test_bands_are_half_open_and_json_has_no_nan() -> None:
    frame = [at(9.99, x=0), at(10.0, x=200), at(20.0, x=400)]
    found = [at(z, x=x, score=0.5) for z, x in ((11.0, 0), (12.0, 200))]
    errors = depth_errors(*flat([frame], [found]), "Car")
    assert [band.ground_truth for band in errors.bands] == [1, 1, 1, 0, 0, 0, 0]
    assert [band.found for band in errors.bands] == [1, 1, 0, 0, 0, 0, 0]
    content = json.loads(json.dumps(errors.to_json(), allow_nan=False))
    assert content["class"] == "Car" and content["total"]["far"] is None and len(content["bands"]) == 7
    assert content["bands"][1]["mean_signed"] == 2.0 and content["bands"][2]["mean_signed"] is None
    assert content["bands"][2]["recall"] == 0.0 and content["bands"][3]["recall"] is None
    lines = errors.table().splitlines()
    assert len(lines) == 10 and lines[3].split()[:5] == ["10-20", "1", "100.0%", "2.00", "2.00"]
    assert lines[5].split() == ["30-40", "0", *["-"] * 6] and lines[-1].split()[:3] == ["all", "3", "66.7%"]


def test_nothing_at_all() -> None:
    for labels, detections in (([[]], [[]]), ([[at(20.0)]], [[]]), ([[]], [[at(20.0, score=0.1)]]), ([], [])):
        errors = depth_errors(*flat(labels, detections), "Car")
        assert errors.total.found == 0 and "-" in errors.table()


def test_what_is_refused() -> None:
    labels, detections = flat([[at(20.0)]], [[at(20.0, score=0.1)]])
    with pytest.raises(ValueError, match="'Tram' is not in the annotations' type_names"):
        depth_errors(labels, detections, "Tram")
    more = flat([[], []], [[], []])[1]
    with pytest.raises(ValueError, match="labels have 1 frames, detections have 2"):
        depth_errors(labels, more, "Car")


def test_other_classes() -> None:
    truck = replace(at(20.0), type="Forklift")
    arrays = flat([[truck]], [[replace(truck, score=0.5, location_cam=(0, 1.7, 23.0))]], ["Forklift"])
    assert depth_errors(*arrays, "Forklift").total.mean_signed == 3.0
