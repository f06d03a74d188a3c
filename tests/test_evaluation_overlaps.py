"""Overlaps of boxes: against shapely, by hand, and with extreme numbers."""

from fractions import Fraction

import numpy as np
import pytest

from lib.evaluation import Annotations, bbox_overlaps, rotated_overlaps
from lib.evaluation.iou import candidate_pairs
from tests.evaluation_twin import footprints, slow_area, slow_clip


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
    """The same, turned by half a turn, end to end, side by side, nearly collinear, slid along its own edges, inside
    with two common edges, turned by a quarter turn, hardly moved, or corner on corner."""
    width, length, tiny = box[1], box[2], 10.0 ** rng.uniform(-15, -3)
    along, across, turn = [
        (0, 0, 0), (0, 0, np.pi), (length, 0, 0), (0, width, 0), (0, 0, tiny), (length * rng.uniform(-1, 1), 0, 0),
        (length / 4, width / 4, 0), (0, 0, np.pi / 2), (tiny, tiny, 0), (length, width, 0),
    ][kind]  # fmt: skip
    cos, sin = np.cos(box[6]), np.sin(box[6])
    other = box + np.array([0, 0, 0, along * cos + across * sin, 0, across * cos - along * sin, turn])
    other[1:3] *= 0.5 if kind == 6 else 1
    return other


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
    labels, detections = (Annotations.from_rows([[("Car", row) for row in values]]) for values in numbers)
    gt_rows, det_rows = candidate_pairs(labels, detections)
    found = set(zip(gt_rows.tolist(), det_rows.tolist(), strict=True))
    bev, _ = rotated_overlaps(np.repeat(a, n, axis=0), np.tile(b, (n, 1)))
    overlapping = {(int(k) // n, int(k) % n) for k in np.flatnonzero(bev)}
    assert overlapping <= found
    assert len(overlapping) > 200 and len(found) < 0.8 * n * n
