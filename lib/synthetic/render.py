"""A scene -> image, instance buffer and labels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from ..structures import Object3d
from .appearance import solid_of
from .ground import draw_ground
from .labels import DONT_CARE_BEYOND_M, is_in_view, measure
from .raster import Silhouette, draw_solid
from .roadside import draw_prop, draw_sky
from .scene import Look, Scene
from .shadows import draw_shadows
from .solids import Solid
from .textures import sensor_noise


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """One rendered frame."""

    image_bgr: np.ndarray
    """(H, W, 3) uint8"""
    instances: np.ndarray
    """(H, W) uint16: k where ``scene.objects[k - 1]`` is seen, else 0"""
    objects: tuple[Object3d, ...]
    """labels with measured boxes, truncation and occlusion; DontCare last"""
    instance_of: tuple[int, ...]
    """for each label, its value in ``instances``"""


def render(scene: Scene, dont_care_beyond: float = DONT_CARE_BEYOND_M) -> RenderedFrame:
    """Draw the scene from far to near and measure its labels. A pure function of its arguments."""
    width, height = scene.size
    canvas = np.zeros((height, width, 3), np.uint8)
    instances = np.zeros((height, width), np.uint16)
    draw_sky(canvas, scene)
    draw_ground(canvas, scene)
    draw_shadows(canvas, scene)
    solids: dict[int, Solid] = {}
    for index, item in enumerate(scene.objects, 1):
        if is_in_view(item, scene.calibration, scene.size):
            # its own stream: an object looks the same whoever else is in the frame
            solids[index] = solid_of(item, np.random.default_rng((*scene.seed, 3, index)))
    houses = sorted((p for p in scene.props if p.kind == "house"), key=lambda p: -_distance(p.end[0], p.end[1]))
    for prop in houses:
        draw_prop(canvas, instances, scene, prop)
    silhouettes = _draw_objects(canvas, instances, scene, solids)
    visible = np.bincount(instances.ravel(), minlength=len(scene.objects) + 1)
    labels = []
    for index, silhouette in sorted(silhouettes.items()):
        label = measure(scene.objects[index - 1], int(visible[index]), silhouette, scene.size, dont_care_beyond)
        if label is not None:
            labels.append((label, index))
    labels.sort(key=lambda pair: pair[0].type == "DontCare")
    image = develop(canvas, scene.look, scene.seed)
    return RenderedFrame(image, instances, tuple(o for o, _ in labels), tuple(i for _, i in labels))


def _distance(x: float, z: float) -> float:
    return math.hypot(x, z)


def _draw_objects(
    canvas: np.ndarray, instances: np.ndarray, scene: Scene, solids: dict[int, Solid]
) -> dict[int, Silhouette]:
    """Draw objects and clutter far to near; returns the silhouette of each object that is drawn."""
    order = far_to_near([(index, scene.objects[index - 1]) for index in solids])
    props = sorted((p for p in scene.props if p.kind != "house"), key=lambda p: -_distance(p.x, p.z))
    silhouettes = {}
    for index in order:
        item = scene.objects[index - 1]
        waiting = [prop for prop in props if is_before((prop.x, prop.z), item)]
        for prop in props:
            if prop not in waiting:
                draw_prop(canvas, instances, scene, prop)
        props = waiting
        pose = (item.location_cam, item.rotation_y)
        silhouette = draw_solid(canvas, instances, solids[index], pose, scene.calibration, scene.lighting, index)
        if silhouette is not None:
            silhouettes[index] = silhouette
    for prop in props:
        draw_prop(canvas, instances, scene, prop)
    return silhouettes


def is_before(point: tuple[float, float], item: Object3d) -> bool:
    """Whether something thin at the ground point (x, z) [m] hides the object rather than the other way round."""
    x, _, z = item.location_cam
    cos, sin = math.cos(item.rotation_y), math.sin(item.rotation_y)
    for axis, half in (((cos, -sin), 0.5 * item.dimensions[2]), ((sin, cos), 0.5 * item.dimensions[1])):
        camera = -x * axis[0] - z * axis[1]
        other = (point[0] - x) * axis[0] + (point[1] - z) * axis[1]
        if abs(camera) > half and camera * other > 0 and abs(other) >= half:
            return True
        if abs(other) >= half and (abs(camera) <= half or camera * other < 0):
            return False
    return _distance(*point) < _distance(x, z)


def far_to_near(objects: list[tuple[int, Object3d]]) -> list[int]:
    """Drawing order of boxes that do not overlap on the ground: whoever can hide another one comes later.

    For two boxes, a wall of one that separates them decides: who is on the camera's side of it is nearer. (Distances
    of centres alone would be wrong for a lorry beside a car.) Cycles, which need overlaps, fall back to distance.
    """
    rest = sorted(objects, key=lambda pair: -_distance(pair[1].location_cam[0], pair[1].location_cam[2]))
    order = []
    while rest:
        for position, (_, item) in enumerate(rest):
            if not any(_hides(item, other) for k, (_, other) in enumerate(rest) if k != position):
                break
        else:
            position = 0
        order.append(rest.pop(position)[0])
    return order


def _hides(near: Object3d, far: Object3d) -> bool:
    """Whether ``near`` is surely on the camera's side of ``far``."""
    reach = 0.5 * (near.dimensions[2] + near.dimensions[1] + far.dimensions[2] + far.dimensions[1])
    gap = _distance(near.location_cam[0], near.location_cam[2]) - _distance(far.location_cam[0], far.location_cam[2])
    if abs(gap) > reach:
        return gap < 0
    for wall_of, sign in ((far, 1.0), (near, -1.0)):
        verdict = _side_of_walls(wall_of, near if wall_of is far else far)
        if verdict is not None:
            return verdict * sign > 0
    return gap < 0


def _side_of_walls(item: Object3d, other: Object3d) -> float | None:
    """+1 when ``other`` is on the camera's side of a wall of ``item``, -1 when it is behind one; None if unclear."""
    x, _, z = item.location_cam
    corners = other.corners_cam()[:4][:, [0, 2]] - (x, z)
    cos, sin = math.cos(item.rotation_y), math.sin(item.rotation_y)
    for axis, half in (((cos, -sin), 0.5 * item.dimensions[2]), ((sin, cos), 0.5 * item.dimensions[1])):
        camera = -x * axis[0] - z * axis[1]
        spans = corners @ np.array(axis)
        for side in (1.0, -1.0):
            if (side * spans).min() >= half - 0.02:
                return 1.0 if side * camera > half else -1.0
    return None


def develop(canvas: np.ndarray, look: Look, seed: tuple[int, ...]) -> np.ndarray:
    """The camera: exposure, colour balance, gamma, blur and noise. Returns a new image (H, W, 3) uint8."""
    ramp = np.arange(256, dtype=np.float64) / 255
    table = np.stack([np.clip(ramp * look.exposure * tint, 0, 1) ** look.gamma for tint in look.tint], axis=1)
    image = cv2.LUT(canvas, np.round(table * 255).astype(np.uint8).reshape(256, 1, 3))
    if look.blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), look.blur)
    noise = sensor_noise()
    rng = np.random.default_rng((*seed, 4))
    height, width = image.shape[:2]
    rows, columns = max(noise.shape[0] - height, 0), max(noise.shape[1] - width, 0)
    top, left = int(rng.integers(rows + 1)), int(rng.integers(columns + 1))
    tile = noise[top : top + height, left : left + width]
    if tile.shape[:2] != (height, width):
        tile = np.pad(tile, ((0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)), mode="wrap")
    return cv2.addWeighted(image, 1.0, tile, look.noise, 0.0, dtype=cv2.CV_8U)
