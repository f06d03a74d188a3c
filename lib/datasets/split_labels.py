"""All labels of a split together: what no single line can tell is logged, and an unknown alpha is replaced."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..ops.angles import wrap_angle
from ..ops.text import counted
from ..structures import UNKNOWN_ALPHA, Calibration, Object3d
from .consistency import ALPHA_TOLERANCE, check_consistency

logger = logging.getLogger(__name__)


# size (width, height) [px] of an image, its camera, and its labels in file order
LabelledImage = tuple[tuple[int, int], Calibration, Sequence[Object3d]]


def review_labels(
    images: Sequence[LabelledImage], frame_ids: Sequence[str], label_dir: Path, split: str
) -> list[tuple[Object3d, ...]]:
    """The labels of each image, with an unknown alpha replaced by that of rotation_y and the position.

    Converters write -10 (nuScenes, CARLA) or the same number everywhere (labelCloud and FiftyOne: 0). This is logged,
    and so are columns that contradict each other, angles that seem to be in degrees, and scores. ``frame_ids`` are the
    images'; ``label_dir`` and ``split`` are named in the log.
    """
    labels = [(size, camera, obj) for size, camera, objects in images for obj in objects]
    placed = [obj for *_, obj in labels if obj.location_cam[2] > 0]
    same = len({obj.alpha for obj in placed}) == 1
    constant = same and any(abs(wrap_angle(obj.alpha - _observe(obj))) > ALPHA_TOLERANCE for obj in placed)
    if constant:
        labels = [(size, camera, replace(obj, alpha=UNKNOWN_ALPHA)) for size, camera, obj in labels]
    consistency = check_consistency(labels)
    if consistency.systematic:
        logger.warning("%s, split %s: %s", label_dir, split, consistency.describe())
    turned = [i for i, (*_, objects) in zip(frame_ids, images, strict=True) for obj in objects if _is_in_degrees(obj)]
    if turned:
        text = "%s, split %s: rotation_y of %s is beyond 2 pi, the first in %s.txt: are they in degrees?"
        logger.warning(text, label_dir, split, counted(len(turned), "label"), turned[0])
    number = sum(_lacks_alpha(obj, constant) for obj in placed)
    if number:
        reason = f"it is {placed[0].alpha:g} in all of them" if constant else "it is outside -pi .. pi"
        text = "%s, split %s: alpha of %s is taken from rotation_y and the position, since %s"
        logger.warning(text, label_dir, split, counted(number, "label"), reason)
    scored = sum(obj.score is not None for *_, obj in labels)
    if scored:
        text = "%s, split %s: the 16th column, a score, of %s is not used"
        logger.warning(text, label_dir, split, counted(scored, "label"))
    return [
        tuple(replace(obj, alpha=_observe(obj)) if _lacks_alpha(obj, constant) else obj for obj in objects)
        for _, _, objects in images
    ]


def _is_in_degrees(obj: Object3d) -> bool:
    return obj.location_cam[2] > 0 and abs(obj.rotation_y) > 2 * math.pi + 0.01


def _lacks_alpha(obj: Object3d, constant: bool) -> bool:
    """``constant``: alpha is one number in all labels. The slack is that of labels with two decimals."""
    return obj.location_cam[2] > 0 and (constant or abs(obj.alpha) > math.pi + 0.01)


def _observe(obj: Object3d) -> float:
    """alpha of an object by its definition: the heading relative to the ray from the camera to the object."""
    x, _, z = obj.location_cam
    return wrap_angle(obj.rotation_y - math.atan2(x, z))
