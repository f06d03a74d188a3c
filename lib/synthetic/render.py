"""A scene -> image, instances and labels, which are measured in the rendered image."""

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from ..ops.angles import wrap_angle
from ..structures import Calibration, Object3d
from .appearance import build_solid
from .footprints import far_to_near, is_before
from .ground import draw_ground, draw_shadows
from .raster import Box, Canvas, draw_solid, project_faces
from .roadside import draw_prop, draw_sky
from .scene import ImageSize, Look, Scene
from .textures import sensor_noise

OCCLUSION_SHARES = (0.85, 0.50, 0.12)  # visible shares of the silhouette below which KITTI's ``occluded`` is 1, 2, 3
MIN_PIXELS = 6  # objects with fewer visible pixels get no label
# random scenes: objects at a larger depth become DontCare, as annotators could not see them either
DONT_CARE_BEYOND_M = 70.0
_BOX_FACES = np.array([(0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7)])


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    image_bgr: np.ndarray  # (H, W, 3) uint8
    instances: np.ndarray  # (H, W) uint16: k where ``scene.objects[k - 1]`` is visible, else 0
    objects: tuple[Object3d, ...]  # labels with measured boxes, truncation and occlusion; DontCare last


def render(scene: Scene, dont_care_beyond: float = DONT_CARE_BEYOND_M) -> RenderedFrame:
    """Draw the scene and measure its labels; those beyond ``dont_care_beyond`` [m] become DontCare. A pure function."""
    width, height = scene.size
    canvas = Canvas(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint16))
    draw_sky(canvas.image, scene)
    draw_ground(canvas.image, scene)
    draw_shadows(canvas.image, scene)
    houses = [prop for prop in scene.props if prop.kind == "house"]
    for prop in sorted(houses, key=lambda prop: -math.hypot(*prop.end)):
        draw_prop(canvas, scene, prop)
    drawn = _draw_objects(canvas, scene)
    visible = np.bincount(canvas.instances.ravel(), minlength=len(scene.objects) + 1)
    labels = []
    for index, (pixels, box_img) in sorted(drawn.items()):
        label = measure_label(scene.objects[index - 1], int(visible[index]), pixels, box_img, scene.size)
        if label is not None:
            labels.append(_dont_care(label) if label.location_cam[2] > dont_care_beyond else label)
    labels.sort(key=lambda label: label.type == "DontCare")
    return RenderedFrame(apply_sensor(canvas.image, scene.look, scene.seed), canvas.instances, tuple(labels))


def _draw_objects(canvas: Canvas, scene: Scene) -> dict[int, tuple[int, Box]]:
    """Draw objects and props, except houses, far to near; returns index -> pixels and box of the objects drawn."""
    props = sorted((p for p in scene.props if p.kind != "house"), key=lambda p: -math.hypot(p.x, p.z))
    objects = {k: o for k, o in enumerate(scene.objects, 1) if is_in_view(o, scene.calibration, scene.size)}
    drawn = {}
    for index in far_to_near(list(objects.items())):
        item = objects[index]
        waiting = []
        for prop in props:
            if is_before((prop.x, prop.z), item):
                waiting.append(prop)
            else:
                draw_prop(canvas, scene, prop)
        props = waiting
        # random numbers of its own: an object does not change its look with the other objects of the frame
        solid = build_solid(item, np.random.default_rng((*scene.seed, 3, index)))
        extent = draw_solid(canvas, scene, item, solid, index)
        if extent is not None:
            drawn[index] = extent
    for prop in props:
        draw_prop(canvas, scene, prop)
    return drawn


def is_in_view(item: Object3d, calibration: Calibration, size: ImageSize) -> bool:
    """Whether the 2D box around the projected 3D box overlaps the image."""
    polygons = project_faces(item.corners_cam()[_BOX_FACES], calibration)
    polygons = polygons[~np.isnan(polygons[:, 0, 0])]
    if len(polygons) == 0:
        return False
    low, high = polygons.min(axis=(0, 1)), polygons.max(axis=(0, 1))
    return bool((high >= 0).all() and (low <= np.array(size) - 1).all())


def measure_label(item: Object3d, visible: int, pixels: int, box_img: Box, size: ImageSize) -> Object3d | None:
    """The label of a rendered object, rounded as in a file; None when it cannot be seen.

    ``visible``: number of its ``pixels`` that nothing nearer hides; ``box_img`` may exceed the image of ``size``.
    """
    inside, truncated = clip_box(box_img, size)
    x1, y1, x2, y2 = (round(v, 2) for v in inside)
    if visible < MIN_PIXELS or x2 - x1 < 1 or y2 - y1 < 1:
        return None
    x, _, z = item.location_cam
    occluded, alpha = occlusion_state(visible / pixels), round(wrap_angle(item.rotation_y - math.atan2(x, z)), 2)
    return replace(item, truncated=round(truncated, 2), occluded=occluded, alpha=alpha, bbox_img=(x1, y1, x2, y2))


def _dont_care(item: Object3d) -> Object3d:
    return Object3d("DontCare", -1.0, -1, -10.0, item.bbox_img, (-1.0,) * 3, (-1000.0,) * 3, -10.0)


def clip_box(box_img: Box, size: ImageSize) -> tuple[Box, float]:
    """The box (x1, y1, x2, y2) inside an image of ``size`` (width, height), and the share of its area outside, 0..1."""
    x1, y1, x2, y2 = (min(max(v, 0.0), end - 1.0) for v, end in zip(box_img, size * 2, strict=True))
    whole = max((box_img[2] - box_img[0]) * (box_img[3] - box_img[1]), 1e-9)
    return (x1, y1, x2, y2), min(max(1.0 - (x2 - x1) * (y2 - y1) / whole, 0.0), 1.0)


def occlusion_state(visible_share: float) -> int:
    """KITTI's ``occluded``: 0 visible, 1 partly, 2 largely occluded, 3 unknown."""
    return sum(visible_share < limit for limit in OCCLUSION_SHARES)


def apply_sensor(image: np.ndarray, look: Look, seed: tuple[int, ...]) -> np.ndarray:
    """Exposure, colour balance, gamma, blur and noise of the camera. Returns a new image (H, W, 3) uint8."""
    ramp = np.arange(256, dtype=np.float64) / 255
    table = np.stack([np.clip(ramp * look.exposure * tint, 0, 1) ** look.gamma for tint in look.tint], axis=1)
    image = cv2.LUT(image, np.round(table * 255).astype(np.uint8).reshape(256, 1, 3))
    if look.blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), look.blur)
    noise, rng = sensor_noise(), np.random.default_rng((*seed, 4))
    height, width = image.shape[:2]
    top, left = (int(rng.integers(max(n - m, 0) + 1)) for n, m in zip(noise.shape[:2], (height, width), strict=True))
    tile = noise[top : top + height, left : left + width]
    tile = np.pad(tile, ((0, height - tile.shape[0]), (0, width - tile.shape[1]), (0, 0)), mode="wrap")
    return cv2.addWeighted(image, 1.0, tile, look.noise, 0.0, dtype=cv2.CV_8U)
