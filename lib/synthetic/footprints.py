"""Object boxes seen from above: whether they overlap, and in which order they are drawn (far to near)."""

import math
from collections.abc import Sequence

from ..structures import Object3d


def footprints_overlap(a: Object3d, b: Object3d, margin: float = 0.25) -> bool:
    """Whether two boxes, seen from above and each grown by ``margin`` / 2 [m], overlap (separating axes)."""
    reach = 0.5 * (math.hypot(*a.dimensions[1:]) + math.hypot(*b.dimensions[1:])) + 2 * margin
    if math.dist(a.location_cam[::2], b.location_cam[::2]) > reach:
        return False
    both = ((a, b), (b, a))
    return all(_side_of_walls(item, other.corners_cam()[:4, ::2].tolist(), -margin) is None for item, other in both)


def far_to_near(objects: list[tuple[int, Object3d]]) -> list[int]:
    """Indices of (index, object) pairs in drawing order: an object that can hide another one comes later.

    For two boxes, a wall of one that separates them decides: the box on the camera's side of it is nearer. (The
    distances of the centres alone would be wrong for a lorry beside a car.) Where boxes overlap on the ground, the
    relation can have cycles; the distance of the centres then decides.
    """
    rest = sorted(objects, key=lambda pair: -_distance(pair[1]))
    order = []
    while rest:
        free = (k for k, (_, item) in enumerate(rest) if not any(_hides(item, o) for _, o in rest if o is not item))
        order.append(rest.pop(next(free, 0))[0])
    return order


def is_before(point: tuple[float, float], item: Object3d) -> bool:
    """Whether something thin at the ground point (x, z) [m] can hide the object, rather than be hidden by it."""
    side = _side_of_walls(item, [point], slack=0.0)
    return math.hypot(*point) < _distance(item) if side is None else side > 0


def _distance(item: Object3d) -> float:
    """Distance [m] on the ground from the camera to the middle of the box."""
    return math.hypot(*item.location_cam[::2])


def _hides(near: Object3d, far: Object3d) -> bool:
    """Whether ``near`` is surely on the camera's side of ``far``."""
    reach = 0.5 * (near.dimensions[2] + near.dimensions[1] + far.dimensions[2] + far.dimensions[1])
    gap = _distance(near) - _distance(far)
    if abs(gap) > reach:
        return gap < 0
    for item, other, sign in ((far, near, 1), (near, far, -1)):
        side = _side_of_walls(item, other.corners_cam()[:4, ::2].tolist(), slack=0.02)
        if side is not None:
            return side * sign > 0
    return gap < 0


def _side_of_walls(item: Object3d, points: Sequence[Sequence[float]], slack: float) -> int | None:
    """+1 when all points (x, z) are on the camera's side of a wall, -1 when they are behind one, None if neither.

    ``slack``: distance [m] by which the points may be inside the wall, or must be outside where it is negative.
    """
    (x, _, z), (_, width, length) = item.location_cam, item.dimensions
    cos, sin = math.cos(item.rotation_y), math.sin(item.rotation_y)
    for ax, az, half in ((cos, -sin, 0.5 * length), (sin, cos, 0.5 * width)):  # along the box's length and width
        camera = -x * ax - z * az
        spans = [(px - x) * ax + (pz - z) * az for px, pz in points]
        for side in (1, -1):
            if min(side * span for span in spans) >= half - slack:
                return 1 if side * camera > half else -1
    return None
