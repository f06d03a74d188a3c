"""A slow second implementation of KITTI's protocol, written from the rules and not from lib/evaluation; its scenes."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np

from lib.evaluation import DIFFICULTIES
from lib.structures import Object3d

NAMES = ["Car", "Pedestrian", "Cyclist"]


def car(x: float = 0, height: float = 50, score: float | None = None, **changes) -> Object3d:
    """A fully visible car; cars at x that differ by 100 do not meet, neither in the image nor on the road."""
    fields = {"type": "Car", "truncated": 0.0, "occluded": 0, "alpha": 0.0, "bbox_img": (x, 100, x + 80, 100 + height)}
    fields |= {"dimensions": (1.5, 1.6, 4.0), "location_cam": (x / 10, 1.7, 20.0), "rotation_y": 0.0}
    return Object3d(**(fields | {"score": score} | changes))


def footprints(boxes: np.ndarray) -> np.ndarray:
    """(n, 4, 2) corners (x, z) on the road."""
    x = np.array([1, -1, -1, 1]) * boxes[:, 2:3] / 2
    z = np.array([1, 1, -1, -1]) * boxes[:, 1:2] / 2
    cos, sin = np.cos(boxes[:, 6:]), np.sin(boxes[:, 6:])
    return np.stack([cos * x + sin * z + boxes[:, 3:4], -sin * x + cos * z + boxes[:, 5:6]], axis=-1)


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
    """One frame in one pass (threshold None: the first pass); -> scores of matches, fp, similarity, valid, missed."""
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
    scores, similarity, hit = [], 0.0, 0
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
        hit += gt_kind[i] == "valid"
        if gt_kind[i] == "valid" and det_kind[best] == "valid":
            scores.append(dets[best].score)
            similarity += (1 + math.cos(gt.alpha - dets[best].alpha)) / 2
    wrong = 0
    for j in alive:
        stuff = any(gts[i].type.lower() == "dontcare" and overlap[metric, i, j] > minimum for i in range(len(gts)))
        wrong += det_kind[j] == "valid" and j not in taken and not stuff
    return scores, wrong, similarity, gt_kind.count("valid"), gt_kind.count("valid") - hit


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


def slow_overlaps(labels, detections):
    """For each frame {(metric, label, detection): overlap}."""
    return [
        {
            (metric, i, j): slow_overlap(metric, det, gt, gt.type.lower() == "dontcare")
            for metric in ("bbox", "bev", "3d") for i, gt in enumerate(gts) for j, det in enumerate(dets)
        }
        for gts, dets in zip(labels, detections, strict=True)
    ]  # fmt: skip


def slow_all_points(cls, difficulty, metric, minimum, labels, detections, overlaps):
    """Area under max{value of thresholds with recall >= r} over recall r, for precision and orientation [%]."""
    frames = list(zip(labels, detections, overlaps, strict=True))
    points = []
    for threshold in sorted({det.score for dets in detections for det in dets}, reverse=True):
        results = [slow_frame(cls, difficulty, metric, minimum, *frame, threshold) for frame in frames]
        found, wrong = sum(len(result[0]) for result in results), sum(result[1] for result in results)
        missed = sum(result[4] for result in results)
        if found:
            values = found / (found + wrong), sum(result[2] for result in results) / (found + wrong)
            points.append((found / (found + missed), *values))
    areas = {}
    for column, name in ((1, "precision"), (2, "orientation")):
        ends = sorted({0.0, *(point[0] for point in points)})
        areas[name] = 100 * sum(
            (right - left) * max(point[column] for point in points if point[0] >= right)
            for left, right in pairwise(ends)
        )
    return areas


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
