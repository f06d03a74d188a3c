"""The evaluator: the conformance cases, rotated overlaps against shapely, a slow twin, edge rules, broken files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tarfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from lib.evaluation import Annotations, KittiResult, evaluate_annotations, evaluate_kitti, evaluate_objects
from lib.evaluation.annotations import COLUMN_NAMES
from lib.evaluation.iou import bbox_overlaps, candidate_pairs
from lib.evaluation.reading import read_annotations
from lib.evaluation.result import DIFFICULTIES, METRICS, OVERLAPS, RECALLS
from lib.evaluation.rotated_iou import rotated_overlaps
from lib.structures import Object3d, read_objects
from tools.evaluate_kitti import main

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "data" / "ap"
SHARED = ROOT.parent / "shared" / "kitti"
NAMES = ["Car", "Pedestrian", "Cyclist"]
JUDGED = sorted(path.stem for path in CASES.glob("*.json") if path.stem != "det_without_score")


# ---- the numbers of the C++ evaluator ----


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(CASES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def worst_difference(expected: dict, result: KittiResult) -> tuple[float, int]:
    """Largest |AP - expected AP| and the number of figures; a class or metric that is missing counts as 0."""
    actual, worst, count = result.to_json(), 0.0, 0
    for overlap in OVERLAPS:
        for cls in NAMES:
            for metric in METRICS:
                for recall in RECALLS:
                    theirs = expected[overlap].get(cls, {}).get(metric, {}).get(recall, [0, 0, 0])
                    ours = actual[overlap].get(cls, {}).get(metric, {}).get(recall, [0, 0, 0])
                    for a, b in zip(theirs, ours, strict=True):
                        count += 1
                        same_kind = (a is None) == (b is None)
                        worst = max(worst, math.inf if not same_kind else 0.0 if a is None else abs(a - b))
    return worst, count


@pytest.mark.parametrize("name", JUDGED)
def test_conformance(name: str, tmp_path: Path) -> None:
    expected = json.loads((CASES / f"{name}.json").read_text())
    case = unpack(name, tmp_path)
    result = evaluate_kitti(case / "label_2", case / "data", None, NAMES)
    assert result.n_frames == expected["frames"]
    assert worst_difference(expected, result) == (pytest.approx(0, abs=1e-6), 144)


def test_all_cases_are_there() -> None:
    assert len(JUDGED) == 27


@pytest.mark.kitti
def test_real_detections(tmp_path: Path) -> None:
    if not (SHARED / "labels_calib.tar.xz").is_file():
        pytest.skip(f"{SHARED} (real KITTI labels and detections, not to be committed) is missing")
    for archive in (SHARED / "labels_calib.tar.xz", SHARED / "detections" / "frustum_pointnet_car.tar.xz"):
        with tarfile.open(archive) as files:
            members = [member for member in files.getmembers() if "calib" not in member.name]
            files.extractall(tmp_path, members, filter="data")
    expected = json.loads((SHARED / "detections" / "frustum_pointnet_car.json").read_text())
    result = evaluate_kitti(tmp_path / "training" / "label_2", tmp_path / "data", None, NAMES)
    assert result.n_frames == 3769
    assert worst_difference(expected, result) == (pytest.approx(0, abs=1e-6), 144)


# ---- rotated overlaps ----


def random_pairs(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """n pairs (height, width, length, x, y, z, turn); one half is degenerate in one of ten ways."""
    rng = np.random.default_rng(seed)
    a = np.stack(
        [rng.uniform(0.5, 3, n), rng.uniform(0.02, 3, n), rng.uniform(0.02, 12, n), rng.uniform(-40, 40, n),
         rng.uniform(0, 3, n), rng.uniform(1, 80, n), rng.uniform(-7, 7, n)], axis=1)  # fmt: skip
    b = a + rng.normal(size=(n, 7)) * np.array([0.3, 0.3, 1, 1, 0.4, 1, 1])
    b[:, :3] = np.abs(b[:, :3]) + 0.01
    for row in range(0, n, 2):
        b[row] = make_degenerate(a[row], row // 2 % 10, rng)
    return a, b


def make_degenerate(box: np.ndarray, kind: int, rng: np.random.Generator) -> np.ndarray:
    other = box.copy()
    along = np.array([np.cos(box[6]), -np.sin(box[6])])  # (x, z) of the box's length
    across = np.array([np.sin(box[6]), np.cos(box[6])])
    if kind == 1:  # the same footprint, a half turn
        other[6] += np.pi
    elif kind == 2:  # end to end
        other[[3, 5]] += along * box[2]
    elif kind == 3:  # side by side
        other[[3, 5]] += across * box[1]
    elif kind == 4:  # nearly collinear edges
        other[6] += 10.0 ** rng.uniform(-15, -3)
    elif kind == 5:  # slid along its own edges
        other[[3, 5]] += along * box[2] * rng.uniform(-1, 1)
    elif kind == 6:  # inside, with two edges in common
        other[1:3] *= 0.5
        other[[3, 5]] += along * box[2] * 0.25 + across * box[1] * 0.25
    elif kind == 7:  # across: a quarter turn
        other[6] += np.pi / 2
    elif kind == 8:  # moved by next to nothing
        other[[3, 5]] += 10.0 ** rng.uniform(-15, -6)
    elif kind == 9:  # corner on corner
        other[[3, 5]] += along * box[2] + across * box[1]
    return other


def footprints(boxes: np.ndarray) -> np.ndarray:
    """(n, 4, 2) corners (x, z) on the road."""
    x = np.array([1, -1, -1, 1]) * boxes[:, 2:3] / 2
    z = np.array([1, 1, -1, -1]) * boxes[:, 1:2] / 2
    cos, sin = np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])
    return np.stack([cos * x + sin * z + boxes[:, 3:4], -sin * x + cos * z + boxes[:, 5:6]], axis=-1)


def exact_intersection(a: np.ndarray, b: np.ndarray) -> float:
    """In rational numbers, from the float64 corners."""
    polygons = [[(Fraction(x), Fraction(z)) for x, z in corners] for corners in footprints(np.array([a, b])).tolist()]
    return float(slow_area(slow_clip(*polygons)))


@pytest.mark.parametrize("n", [6_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_rotated_overlaps_against_shapely(n: int) -> None:
    shapely = pytest.importorskip("shapely", reason="shapely is the independent judge of this test")
    a, b = random_pairs(n, seed=n)
    bev, volume = rotated_overlaps(a, b)
    inter = shapely.area(shapely.intersection(shapely.polygons(footprints(a)), shapely.polygons(footprints(b))))
    area_a, area_b = a[:, 1] * a[:, 2], b[:, 1] * b[:, 2]
    # GEOS takes about 1 of 5,000 touching boxes for the same, and half a box for none: rational numbers decide there
    disputed = np.flatnonzero(np.abs(bev - inter / (area_a + area_b - inter)) > 1e-9)
    assert len(disputed) <= 0.001 * n
    inter[disputed] = [exact_intersection(a[row], b[row]) for row in disputed]
    height = np.minimum(a[:, 4], b[:, 4]) - np.maximum(a[:, 4] - a[:, 0], b[:, 4] - b[:, 0])
    inter_3d = inter * np.maximum(height, 0)
    assert np.abs(bev - inter / (area_a + area_b - inter)).max() <= 1e-9
    assert np.abs(volume - inter_3d / (area_a * a[:, 0] + area_b * b[:, 0] - inter_3d)).max() <= 1e-9
    assert (bev > 0.05).mean() > 0.3 and (bev == 0).mean() > 0.05  # the pairs are worth comparing


def test_rotated_overlaps_exact_cases() -> None:
    a, _ = random_pairs(2_000, seed=5)
    bev, volume = rotated_overlaps(a, a.copy())
    assert (bev == 1).all() and (volume == 1).all()
    rng = np.random.default_rng(0)
    for kind in (2, 3, 9):
        touching = np.array([make_degenerate(box, kind, rng) for box in a])
        assert (np.stack(rotated_overlaps(a, touching)) == 0).all()
    above = a.copy()
    above[:, 4] -= a[:, 0]
    bev, volume = rotated_overlaps(a, above)
    assert (bev == 1).all() and (volume == 0).all()


@pytest.mark.parametrize(
    "sizes", [(0, 0, 0), (1.5, 0, 4), (1.5, 1.6, 0), (-1, -1, -1), (1.5, -1.6, -4), (1, 1e-200, 1e-200)]
)
def test_a_box_without_area_overlaps_nothing(sizes: tuple[float, float, float]) -> None:
    box = np.array([[*sizes, 1.0, 2.0, 30.0, 0.3]])
    solid = np.array([[1.5, 1.6, 4, 1, 2, 30, 0.3]])
    for pair in ((box, solid), (solid, box), (box, box.copy())):
        for over_detection in (False, True):
            bev, volume = rotated_overlaps(*pair, np.array([over_detection]))
            assert bev[0] == 0 and volume[0] == 0


def test_extreme_boxes_give_numbers() -> None:
    values = [1e-300, 1e-8, 1.0, 1e8, 1e300]
    sizes = np.array([[h, w, length, 0, h, 0, 1] for h in values for w in values for length in values])
    a, b = np.repeat(sizes, len(sizes), axis=0), np.tile(sizes, (len(sizes), 1))
    for overlaps in rotated_overlaps(a, b):
        assert np.isfinite(overlaps).all() and (overlaps >= 0).all() and (overlaps <= 1).all()


def test_huge_numbers_in_files_are_no_crash_and_no_match() -> None:
    huge = car(score=1, bbox_img=(-1e300, -1e300, 1e300, 1e300), dimensions=(1e300,) * 3)
    huge = replace(huge, location_cam=(-1e308, 0, 1e308))
    result = evaluate_objects([[car(), replace(huge, score=None)]], [[huge, car(score=0.5)]], NAMES, [(0, 30)])
    for metric in ("bbox", "bev", "3d"):
        assert last(result.curves["official", "Car", metric, "easy"]) == (1, 1)


def test_bbox_overlaps_by_hand() -> None:
    gt = np.array([[0, 0, 10, 10]] * 6, dtype=float)
    det = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [0, 0, 5, 5], [5, 5, 5, 5], [9, 9, 1, 1]])
    iou = bbox_overlaps(gt, det, np.zeros(6, dtype=bool))
    assert iou.tolist() == [1, 50 / 150, 0, 0.25, 0, 0]
    assert bbox_overlaps(gt, det, np.ones(6, dtype=bool)).tolist() == [1, 0.5, 0, 1, 0, 0]


def test_candidate_pairs_miss_no_overlap() -> None:
    n = 60
    a, b = (boxes * np.array([1, 1, 1, 0.3, 1, 0.3, 1]) for boxes in random_pairs(n, seed=9))
    apart = np.zeros((n, 7))  # no 2D box: only the circumcircles can bring a pair in
    numbers = [np.concatenate([apart, boxes], axis=1) for boxes in (a, b)]
    labels, detections = (Annotations.from_arrays([["Car"] * n], [values]) for values in numbers)
    starts, rows = candidate_pairs(labels, detections)
    found = {(i, int(j)) for i in range(n) for j in rows[starts[i] : starts[i + 1]]}
    bev, _ = rotated_overlaps(np.repeat(a, n, axis=0), np.tile(b, (n, 1)))
    overlapping = {(int(k) // n, int(k) % n) for k in np.flatnonzero(bev)}
    assert overlapping <= found
    assert len(overlapping) > 200 and len(found) < 0.8 * n * n


# ---- a slow twin, written from the rules and not from lib/evaluation ----


def slow_intersection(a: Object3d, b: Object3d) -> float:
    if min(*a.dimensions[1:], *b.dimensions[1:]) <= 0:
        return 0.0
    boxes = np.array([[*obj.dimensions, *obj.location_cam, obj.rotation_y] for obj in (a, b)])
    return slow_area(slow_clip(*footprints(boxes).tolist()))


def slow_area(polygon):
    shifted = polygon[1:] + polygon[:1]
    return abs(sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(polygon, shifted, strict=True))) / 2


def slow_clip(subject, window):
    """The part of one polygon inside the other, convex and with the same sense of rotation; any kind of numbers."""
    for p, q in zip(window, window[1:] + window[:1], strict=True):
        side = [(q[0] - p[0]) * (v[1] - p[1]) - (q[1] - p[1]) * (v[0] - p[0]) for v in subject]  # left is inside
        kept = []
        for i, v in enumerate(subject):
            j = (i + 1) % len(subject)
            if side[i] >= 0:
                kept.append(v)
            if side[i] * side[j] < 0:
                t = side[i] / (side[i] - side[j])
                kept.append((v[0] + t * (subject[j][0] - v[0]), v[1] + t * (subject[j][1] - v[1])))
        subject = kept
    return subject


def slow_overlap(metric: str, det: Object3d, gt: Object3d, over_detection: bool) -> float:
    if metric == "bbox":
        a, b = det.bbox_img, gt.bbox_img
        w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        inter = w * h if w > 0 and h > 0 else 0.0
        size = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    else:
        inter = slow_intersection(det, gt)
        size = [obj.dimensions[1] * obj.dimensions[2] for obj in (det, gt)]
        if metric == "3d":
            bottom = min(det.location_cam[1], gt.location_cam[1])
            top = max(obj.location_cam[1] - obj.dimensions[0] for obj in (det, gt))
            inter *= max(0.0, bottom - top)
            size = [obj.dimensions[0] * part for obj, part in zip((det, gt), size, strict=True)]
    if inter <= 0:
        return 0.0
    return inter / size[0] if over_detection else inter / (size[0] + size[1] - inter)


def slow_frame(cls, difficulty, metric, minimum, gts, dets, overlap, threshold):
    """One frame in one pass (threshold None: the first pass); -> scores of matches, fp, similarity, tp."""
    level = DIFFICULTIES.index(difficulty)
    min_height = (40, 25, 25)[level]
    neighbour = {"car": "van", "pedestrian": "person_sitting"}.get(cls.lower())
    gt_kind = []
    for gt in gts:
        hard = gt.occluded > level or gt.truncated > (0.15, 0.3, 0.5)[level]
        hard = hard or gt.bbox_img[3] - gt.bbox_img[1] <= min_height
        own = gt.type.lower() == cls.lower()
        gt_kind.append("ignored" if gt.type.lower() == neighbour or (own and hard) else "valid" if own else "other")
    det_kind = []
    for det in dets:
        small = int(abs(det.bbox_img[1] - det.bbox_img[3])) < min_height
        det_kind.append("ignored" if small else "valid" if det.type.lower() == cls.lower() else "other")
    enough = [threshold is None or det.score >= threshold for det in dets]
    alive = [j for j in range(len(dets)) if det_kind[j] != "other" and enough[j]]
    taken: set[int] = set()
    scores, similarity = [], 0.0
    for i, gt in enumerate(gts):
        if gt_kind[i] == "other":
            continue
        found = [j for j in alive if j not in taken and overlap[metric, i, j] > minimum]
        if threshold is None:
            best = max(found, key=lambda j: (dets[j].score, -j), default=None)
        else:
            valid = [j for j in found if det_kind[j] == "valid"]
            best = max(valid, key=lambda j: (overlap[metric, i, j], -j), default=found[0] if found else None)
        if best is None:
            continue
        taken.add(best)
        if gt_kind[i] == "valid" and det_kind[best] == "valid":
            scores.append(dets[best].score)
            similarity += (1 + math.cos(gt.alpha - dets[best].alpha)) / 2
    wrong = 0
    for j in alive:
        stuff = any(gts[i].type.lower() == "dontcare" and overlap[metric, i, j] > minimum for i in range(len(gts)))
        wrong += det_kind[j] == "valid" and j not in taken and not stuff
    return scores, wrong, similarity, gt_kind.count("valid")


def slow_ap(cls, difficulty, metric, minimum, labels, detections, overlaps):
    """-> {(precision or orientation, R40 or R11): AP}."""
    frames = list(zip(labels, detections, overlaps, strict=True))
    first = [slow_frame(cls, difficulty, metric, minimum, *frame, None) for frame in frames]
    scores = sorted((score for frame in first for score in frame[0]), reverse=True)
    n_gt = sum(frame[3] for frame in first)
    thresholds, recall = [], 0.0
    for k, score in enumerate(scores):
        left, right = (k + 1) / n_gt, (k + 2) / n_gt
        if k < len(scores) - 1 and right - recall < recall - left:
            continue
        thresholds.append(score)
        recall += 1 / 40
    curves = {"precision": [0.0] * 41, "orientation": [0.0] * 41}
    for t, threshold in enumerate(thresholds):
        found, wrong, similarity = 0, 0, 0.0
        for frame in frames:
            result = slow_frame(cls, difficulty, metric, minimum, *frame, threshold)
            found, wrong, similarity = found + len(result[0]), wrong + result[1], similarity + result[2]
        total = found + wrong
        curves["precision"][t] = found / total if total else math.nan
        curves["orientation"][t] = similarity / total if total else math.nan
    figures = {}
    for name, values in curves.items():
        best = [v if math.isnan(v) else max(w for w in values[t:] if not math.isnan(w)) for t, v in enumerate(values)]
        figures[name, "R40"] = 100 * sum(best[1:]) / 40
        figures[name, "R11"] = 100 * sum(best[::4]) / 11
    return figures


def random_scene(rng: np.random.Generator) -> tuple[list[list[Object3d]], list[list[Object3d]]]:
    """Crowded frames with all types in any case, tied scores, small boxes, and boxes without volume."""
    labels, detections = [], []
    types = ["Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "DontCare", "Truck", "Misc", "car", "PEDESTRIAN"]
    for _ in range(rng.integers(1, 9)):
        gts = [random_object(rng, str(rng.choice(types))) for _ in range(rng.integers(0, 9))]
        dets = []
        for gt in gts:
            for _ in range(rng.integers(0, 3)):
                name = gt.type if rng.random() < 0.7 else str(rng.choice(types))
                name = "Car" if name == "DontCare" else name
                box = tuple(round(v + rng.normal(0, 3), 2) for v in gt.bbox_img)
                place = tuple(round(v + rng.normal(0, 0.2), 2) for v in gt.location_cam)
                sizes = tuple(round(v * rng.choice([1, 1, 1.1, 0]) if v > 0 else 1.5, 2) for v in gt.dimensions)
                turn = round(gt.rotation_y + rng.normal(0, 0.1), 2)
                dets.append(replace(gt, type=name, bbox_img=box, location_cam=place, dimensions=sizes, rotation_y=turn,
                                    alpha=turn, score=round(float(rng.uniform(0, 1)), 1)))  # fmt: skip
        dets += [replace(random_object(rng, str(rng.choice(types[:5]))), score=0.3) for _ in range(rng.integers(0, 4))]
        labels.append(gts)
        detections.append([dets[k] for k in rng.permutation(len(dets))])
    return labels, detections


def random_object(rng: np.random.Generator, name: str) -> Object3d:
    x1, y1 = rng.uniform(0, 300), rng.uniform(100, 160)
    bbox = tuple(round(v, 2) for v in (x1, y1, x1 + rng.uniform(20, 80), y1 + rng.uniform(20, 80)))
    if name == "DontCare" and rng.random() < 0.5:
        return Object3d(name, -1, -1, -10, bbox, (-1, -1, -1), (-1000, -1000, -1000), -10)
    turn = round(rng.uniform(-3, 3), 2)
    location = tuple(round(v, 2) for v in (rng.uniform(-5, 5), 1.7, rng.uniform(10, 18)))
    truncated, occluded = float(rng.choice([0, 0, 0.15, 0.2, 0.5, 0.6])), int(rng.integers(0, 4))
    return Object3d(name, truncated, occluded, turn, bbox, (1.5, 1.6, 3.9), location, turn)


@pytest.mark.parametrize("seed", range(10))
def test_same_as_the_slow_twin(seed: int) -> None:
    labels, detections = random_scene(np.random.default_rng(seed))
    overlaps = [
        {
            (metric, i, j): slow_overlap(metric, det, gt, gt.type.lower() == "dontcare")
            for metric in ("bbox", "bev", "3d") for i, gt in enumerate(gts) for j, det in enumerate(dets)
        }
        for gts, dets in zip(labels, detections, strict=True)
    ]  # fmt: skip
    result = evaluate_objects(labels, detections, NAMES)
    for (overlap, cls, metric, difficulty), curve in result.curves.items():
        minimum = OVERLAPS[overlap][cls][metric]
        figures = slow_ap(cls, difficulty, metric, minimum, labels, detections, overlaps)
        for recall in RECALLS:
            expected = pytest.approx(figures["precision", recall], abs=1e-9, nan_ok=True)
            assert result.ap(cls, metric, difficulty, overlap, recall) == expected
            if curve.orientation is not None:
                expected = pytest.approx(figures["orientation", recall], abs=1e-9, nan_ok=True)
                assert result.ap(cls, "aos", difficulty, overlap, recall) == expected


# ---- rules one by one ----


def car(x: float = 0, height: float = 50, score: float | None = None, **changes) -> Object3d:
    """A fully visible car; cars at x that differ by 100 do not meet, neither in the image nor on the road."""
    fields = {"type": "Car", "truncated": 0.0, "occluded": 0, "alpha": 0.0, "bbox_img": (x, 100, x + 80, 100 + height)}
    fields |= {"dimensions": (1.5, 1.6, 4.0), "location_cam": (x / 10, 1.7, 20.0), "rotation_y": 0.0}
    return Object3d(**(fields | {"score": score} | changes))


def curve_of(labels, detections, cls="Car", metric="bbox", difficulty="moderate", overlap="official"):
    return evaluate_objects([labels], [detections]).curves[overlap, cls, metric, difficulty]


def last(curve) -> tuple[int, int]:
    return int(curve.true_positives[-1]), int(curve.false_positives[-1])


@pytest.mark.parametrize(
    ("height", "valid"), [(25.0, [0, 0, 0]), (25.01, [0, 1, 1]), (40.0, [0, 1, 1]), (40.01, [1, 1, 1])]
)
def test_ground_truth_must_be_higher_than_the_minimum(height: float, valid: list[int]) -> None:
    curves = [curve_of([car(height=height)], [car(score=1)], difficulty=name) for name in DIFFICULTIES]
    assert [curve.n_ground_truth for curve in curves] == valid


@pytest.mark.parametrize(
    ("height", "valid"), [(24.99, [0, 0, 0]), (25.0, [0, 1, 1]), (39.99, [0, 1, 1]), (40.0, [1, 1, 1])]
)
def test_detection_may_have_the_minimum_height(height: float, valid: list[int]) -> None:
    down = car(height=height, score=1)
    x1, y1, x2, y2 = down.bbox_img
    for det in (down, replace(down, bbox_img=(x1, y2, x2, y1))):  # |y1 - y2|
        curves = [curve_of([], [det], difficulty=name) for name in DIFFICULTIES]
        assert [curve.n_detections for curve in curves] == valid


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


def test_overlap_must_be_larger_than_the_minimum() -> None:
    label = car(height=100, type="Pedestrian")
    at, above = (car(height=h, type="Pedestrian", score=1) for h in (50, 51))  # overlaps 0.5 and 0.51
    assert len(curve_of([label], [at], "Pedestrian").thresholds) == 0
    assert last(curve_of([label], [above], "Pedestrian")) == (1, 0)


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


def test_equal_scores_the_first_in_the_file_is_taken() -> None:
    # both overlap the first car, only the second of them overlaps the second car as well: taken first, it is gone
    first, second = car(0), car(14)
    left, between = car(-6, score=0.5), car(8, score=0.5)
    thresholds = curve_of([first, second], [left, between]).thresholds
    assert len(thresholds) == 2
    assert len(curve_of([first, second], [between, left]).thresholds) == 1


def test_few_ground_truths_do_not_reach_100() -> None:
    for n, expected in ((1, 0.0), (10, 100 * 9 / 40), (40, 100 * 39 / 40), (41, 100.0), (90, 100.0)):
        labels = [[car(0)] for _ in range(n)]
        detections = [[car(0, score=1 - k / 100)] for k in range(n)]
        for metric in METRICS:
            assert evaluate_objects(labels, detections).ap("Car", metric) == pytest.approx(expected, abs=1e-9)


def test_no_figure() -> None:
    result = evaluate_objects([[car()]], [[car(score=1, alpha=-10)]])
    assert math.isnan(result.ap("Car", "aos")) and not math.isnan(result.ap("Car", "bbox"))
    assert "aos" not in result.to_json()["official"]["Car"]
    assert "Pedestrian" not in result.to_json()["loose"]
    flat = car(score=1, dimensions=(-1, -1, -1), location_cam=(-1000, -1000, -1000))
    assert set(evaluate_objects([[car()]], [[flat]]).to_json()["official"]["Car"]) == {"bbox", "aos"}
    no_image = car(score=1, bbox_img=(-1, -1, -1, -1))
    assert set(evaluate_objects([[car()]], [[no_image]]).to_json()["official"]["Car"]) == {"bev", "3d"}
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


# ---- the three ways in ----


def test_tables_of_cells_have_the_figures() -> None:
    near, far = car(location_cam=(0, 1.7, 20.0)), car(200, location_cam=(20, 1.7, 40.0))
    dets = [replace(near, score=0.9), replace(far, score=0.8)]
    result = evaluate_objects([[near, far]], [dets], NAMES, [(0, 30), (30, 50), (50, 70)])
    header, counts, *rows = result.rows("Car")
    assert header[2:] == list(DIFFICULTIES) and counts[2:] == ["2", "2", "2"]
    assert [tuple(row[:2]) for row in rows] == [
        *[(name, "official 0.70") for name in ("2D", "AOS", "BEV", "3D")], ("BEV", "loose 0.50"), ("3D", "loose 0.50")
    ]  # fmt: skip
    shown = [*(("official", metric) for metric in METRICS), ("loose", "bev"), ("loose", "3d")]
    for row, (overlap, metric) in zip(rows, shown, strict=True):
        assert row[2:] == [f"{result.ap('Car', metric, name, overlap):.2f}" for name in DIFFICULTIES]
    header, *bands = result.distance_rows("Car")
    assert header == ["depth [m]", "ground truth", "2D", "AOS", "BEV", "3D", "BEV loose", "3D loose"]
    assert [band[:2] for band in bands] == [["0-30", "1"], ["30-50", "1"], ["50-70", "0"]]
    assert bands[0][5] == f"{result.by_distance['0-30'].ap('Car', '3d'):.2f}" and bands[2][2:] == ["-"] * 6
    assert result.never_detected == ("Pedestrian", "Cyclist")
    assert all(cell == "-" for row in result.rows("Cyclist")[1:] for cell in row[2:])
    blocks = result.table().split("\n\nDepth ")[0].split("\n\n")[1:]
    assert [block.split()[0] for block in blocks] == list(NAMES) and [len(b.splitlines()) for b in blocks] == [11, 1, 1]


def test_files_objects_and_arrays_agree(tmp_path: Path) -> None:
    case = unpack("realistic_50", tmp_path)
    ids = [path.stem for path in sorted((case / "data").glob("*.txt"))]
    by_file = evaluate_kitti(case / "label_2", case / "data", ids, NAMES).to_json()
    frames = [[read_objects(case / part / f"{frame}.txt") for frame in ids] for part in ("label_2", "data")]
    assert evaluate_objects(*frames, NAMES).to_json() == by_file
    arrays = []
    for part in frames:
        types = [[obj.type for obj in objects] for objects in part]
        numbers = [
            np.array([(o.truncated, o.occluded, o.alpha, *o.bbox_img, *o.dimensions, *o.location_cam, o.rotation_y,
                       o.score or 0) for o in objects]).reshape(-1, 15)
            for objects in part
        ]  # fmt: skip
        arrays.append(Annotations.from_arrays(types, numbers))
    assert evaluate_annotations(*arrays, NAMES).to_json() == by_file
    backwards = evaluate_kitti(case / "label_2", case / "data", ids[::-1], NAMES)
    assert worst_difference(by_file, backwards)[0] <= 1e-9


def test_refused_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no label is of the class 'Tram'; KITTI evaluates Car, Pedestrian, Cyclist"):
        evaluate_objects([[]], [[]], ["Tram"])
    for name in ("DontCare", "two words", "Straßenbahn", ""):
        with pytest.raises(ValueError, match="cannot be evaluated; a class is one ASCII word and not DontCare"):
            evaluate_objects([[]], [[]], [name])
    with pytest.raises(ValueError, match="labels have 1 frames, detections have 2"):
        evaluate_objects([[]], [[], []])
    with pytest.raises(ValueError, match="frame 0, detection 0: score is missing"):
        evaluate_objects([[]], [[car()]])
    with pytest.raises(ValueError, match="frame 0, object 0: alpha must be a finite number, got nan"):
        evaluate_objects([[]], [[car(score=1, alpha=math.nan)]])
    for nothing in ([], "000001"):
        with pytest.raises(ValueError, match="ids must be a sequence with at least one frame"):
            evaluate_kitti(tmp_path, tmp_path, nothing)
    with pytest.raises(ValueError, match="'000001' is listed twice"):
        evaluate_kitti(tmp_path, tmp_path, ["000001", "000002", "000001"])


# ---- files ----

LABEL = "Car 0.00 0 -1.57 100.00 100.00 200.00 160.00 1.50 1.60 4.00 0.00 1.70 20.00 -1.57"


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for part, line in (("label_2", LABEL), ("data", f"{LABEL} 0.9")):
        (tmp_path / part).mkdir()
        for frame in range(3):
            (tmp_path / part / f"{frame:06d}.txt").write_text(f"{line}\n{line}\n")
    return tmp_path / "label_2", tmp_path / "data"


BROKEN = {
    "word": (b"Car 0.0 0 high 1 2 3 4 5 6 7 8 9 10 11 0.5", "alpha must be a finite number, got 'high'"),
    "nan": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 NaN 10 11 0.5", "y must be a finite number, got 'NaN'"),
    "inf": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 -inf", "score must be a finite number, got '-inf'"),
    "overflow": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 1e999", "score must be a finite number, got '1e999'"),
    "underscore": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 1_0", "score must be a finite number, got '1_0'"),
    "14 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10", r"expected 16 columns \(a detection with its score\), got 14"),
    "15 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11", "15 columns: the score is missing"),
    "17 columns": (b"Car 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 0.5 1", "got 17"),
    "binary": (b"\x89PNG\x00\x01", "not a text file"),
    "latin": ("Car\xe9 0.0 0 1 1 2 3 4 5 6 7 8 9 10 11 0.5".encode("latin-1"), "not a text file"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_result_file(kind: str, folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    content, message = BROKEN[kind]
    broken = folders[1] / "000001.txt"
    broken.write_bytes(f"{LABEL} 0.9\n\n".encode() + content + b"\n")
    with pytest.raises(ValueError, match=message) as error:
        evaluate_kitti(*folders)
    assert str(error.value).startswith(f"{broken}, line 3: ")
    assert main(["--labels", str(folders[0]), "--results", str(folders[1])]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err == f"error: {error.value}\n"


def test_broken_label_file(folders: tuple[Path, Path]) -> None:
    (folders[0] / "000002.txt").write_text(LABEL.replace(" 0 ", " 0.5 ", 1))
    with pytest.raises(ValueError, match=r"000002.txt, line 1: occluded must be a whole number .* got '0.5'"):
        evaluate_kitti(*folders)
    (folders[0] / "000002.txt").write_text(f"{LABEL}\n{LABEL[:30]}\n")
    with pytest.raises(ValueError, match=r"000002.txt, line 2: expected 15 columns \(a label\), got 6"):
        evaluate_kitti(*folders)


def test_missing_and_odd_files(folders: tuple[Path, Path]) -> None:
    labels, results = folders
    (results / "readme.txt").write_text("not a frame")
    (results / "000001.txt").write_text("")  # a frame without detections
    (results / "000002.txt").unlink()  # not evaluated unless listed
    assert evaluate_kitti(labels, results).n_frames == 2
    assert evaluate_kitti(labels, results, ["000000"]).n_detections == 2
    ids = [f"{frame:06d}" for frame in range(7)]
    message = r"no result file for 5 of 7 frames: 000002.txt, 000003.txt, 000004.txt, \.\."
    with pytest.raises(FileNotFoundError, match=message):
        evaluate_kitti(labels, results, ids)
    (labels / "000000.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no label file for 1 of 2 frames: 000000.txt"):
        evaluate_kitti(labels, results)
    (results / "000003.txt").mkdir()
    with pytest.raises(ValueError, match=r"000003.txt: a folder stands where"):
        evaluate_kitti(labels, results, ["000003"])
    with pytest.raises(FileNotFoundError, match="no such folder"):
        evaluate_kitti(labels, results / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no result files .* did you mean .*data\?"):
        evaluate_kitti(labels, results.parent)


def test_a_file_without_score_is_refused(tmp_path: Path) -> None:
    case = unpack("det_without_score", tmp_path)
    with pytest.raises(ValueError, match=r"000000.txt, line 1: 15 columns: the score is missing"):
        evaluate_kitti(case / "label_2", case / "data")


def test_numbers_are_read_as_python_reads_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tokens = ["0", "-0", "+1.5", ".5", "5.", "007.50", "1e3", "1E+3", "-2.5e-3", "1e22", "1e23", "123456789012345"]
    tokens += ["1234567890123456", "9007199254740993", "0.1234567890123456789", "1e-320", "0e999", f"0.{'0' * 22}1"]
    tokens += [repr(float(v)) for v in rng.normal(size=300) * 10.0 ** rng.integers(-20, 20, 300)]
    tokens += [f"{v:.{n}f}" for v, n in zip(rng.normal(0, 100, 300), rng.integers(0, 18, 300), strict=True)]
    tokens += ["1"] * (-len(tokens) % 15)
    rows = [tokens[k : k + 15] for k in range(0, len(tokens), 15)]
    (tmp_path / "000000.txt").write_text("\r\n".join("Car\t" + "  ".join(row) for row in rows))
    read = read_annotations(tmp_path, ["000000"], scored=True)
    assert read.values.tolist() == [[float(token) for token in row] for row in rows]
    assert len(COLUMN_NAMES) == 15


# ---- the command ----


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = unpack("realistic_50", tmp_path)
    expected = json.loads((CASES / "realistic_50.json").read_text())
    ids = tmp_path / "val.txt"
    ids.write_text("".join(f"{path.stem}\n" for path in sorted((case / "data").glob("*.txt"))))
    out, image = tmp_path / "new" / "ap.json", tmp_path / "curves.png"
    args = ["--labels", str(case / "label_2"), "--results", str(case / "data"), "--ids", str(ids)]
    args += ["--json", str(out), "--curves", str(image), "--by-distance", "--classes", "Car", "Cyclist"]
    assert main(args) == 0
    written = json.loads(out.read_text())
    for cls in ("Car", "Cyclist"):
        assert written["official"][cls]["3d"]["R40"] == pytest.approx(expected["official"][cls]["3d"]["R40"], abs=1e-6)
    assert set(written["official"]) == {"Car", "Cyclist"} and list(written["by_distance"]) == ["0-30", "30-50", "50-70"]
    counts = written["counts"]["official"]["Car"]["3d"]
    assert all(tp <= n for tp, n in zip(counts["true_positives"], counts["valid_ground_truth"], strict=True))
    assert image.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert f"{expected['official']['Car']['3d']['R40'][1]:.2f}" in table and "Depth 30-50 m" in table
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "new", "realistic_50", "val.txt"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("000000\na b c\n", "line 2: expected one frame id"),
     ("000000\n\n000000\n", "line 3: frame 000000 is already on line 1"),
     ("\n", "the split is empty"), ("000000\n000009\n", "no result file for 1 of 2 frames: 000009.txt"),
     (None, "no such split file")],
)  # fmt: skip
def test_command_with_a_broken_list(
    text: str | None, message: str, folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "ids.txt").write_text(text)
    assert main(["--labels", str(folders[0]), "--results", str(folders[1]), "--ids", str(tmp_path / "ids.txt")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""


def test_evaluation_needs_neither_torch_nor_cv2() -> None:
    code = "import sys, lib.evaluation; print([m for m in ('torch', 'cv2', 'matplotlib') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
