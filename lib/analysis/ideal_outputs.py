"""What a network that has learnt a frame by heart would put out: the best that targets, stride and peaks can say.

K slots of the targets, n of them. A label's line counts from 0 and is its slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Dataset
from ..datasets.augmentation import Augmentation
from ..datasets.targets import encode_targets, exclusion
from ..ops.angles import NUM_HEADING_BINS
from ..ops.depth import encode_depth
from ..ops.feature_map import find_peaks
from ..structures import Calibration, Object3d

_STEP = 1e-5
"""between peaks: more than float32 rounds away, and 49 of them less than a peak stands above the cells around it"""


class Memorised(NamedTuple):
    """One frame."""

    outputs: dict[str, Tensor]
    """what ``decode_detections`` takes, (1, n, ..): the peaks that stand for a label, best first"""
    lines: list[int]
    """the label of each of the n"""
    lost: dict[int, str]
    """why a label of the writelist is not among them, by its line: 'cell', 'neighbour', 'topk', 'outside', or what
    ``exclusion`` says; 'cell' is also said of a label whose peak is there with another one's values"""


def memorise(
    objects: Sequence[Object3d], calibration: Calibration, image_size: tuple[int, int], config: Dataset, topk: int
) -> Memorised:
    """Encode a whole image's labels, let the heatmap be the target itself, and read the heads at its peaks.

    A cell has one value of each head. Of several labels in one cell that is the nearest one's, which hides the others.
    Peaks of the target are all 1, and equal neighbours would survive the 3x3 suppression side by side; no network is
    that even. So a nearer label's peak is higher by a hundred-thousandth, suppresses others, and is taken first.
    Peaks without values of their own (vans that ``class_merging`` draws) are left out.
    """
    targets = encode_targets(objects, calibration, Augmentation.identity(image_size), config)
    slots = np.flatnonzero(targets["mask_2d"]).tolist()
    cells = {slot: int(targets["indices"][slot]) for slot in slots}
    channels = {slot: config.class_names.index(objects[slot].type) for slot in slots}
    far_to_near = sorted(slots, key=lambda slot: (-objects[slot].location_cam[2], -slot))
    owners = {cells[slot]: slot for slot in far_to_near}
    standing = {(channels[slot], cells[slot]): slot for slot in far_to_near}

    heatmap = torch.from_numpy(targets["heatmap"])
    for rank, slot in zip(reversed(range(len(slots))), far_to_near, strict=True):
        heatmap[channels[slot]].view(-1)[cells[slot]] = 1 - _STEP * rank
    peaks = find_peaks(_logits(heatmap)[None], topk)
    found = list(zip(peaks.classes[0].tolist(), peaks.indices[0].tolist(), strict=True))
    found = [place for place in found if place in standing]
    lost = _not_encoded(objects, targets["mask_2d"], config)
    for slot in slots:
        place = channels[slot], cells[slot]
        if owners[cells[slot]] != slot:
            lost[slot] = "cell"
        elif place not in found:
            lost[slot] = "topk" if _is_peak(heatmap, place) else "neighbour"
    outputs = outputs_at(targets, [owners[cell] for _, cell in found], [channel for channel, _ in found])
    return Memorised(outputs, [standing[place] for place in found], lost)


def outputs_at(targets: dict[str, np.ndarray], slots: Sequence[int], classes: Sequence[int]) -> dict[str, Tensor]:
    """The n slots' targets coded as outputs at peaks of ``classes``: heatmap value 1, log variance of the depth 0.

    Returns what ``decode_detections`` takes, (1, n, ..).
    """
    at = {name: torch.from_numpy(value[list(slots)]) for name, value in targets.items() if name != "heatmap"}
    raw_depth = encode_depth(at["depth"].double())
    heading = torch.zeros(len(slots), 2 * NUM_HEADING_BINS)
    heading.scatter_(1, at["heading_bin"], 1.0)
    heading.scatter_(1, at["heading_bin"] + NUM_HEADING_BINS, at["heading_res"])
    outputs = {
        "scores": torch.ones(len(slots)),
        "classes": torch.tensor(classes, dtype=torch.int64),
        "depth": torch.cat([raw_depth, torch.zeros_like(raw_depth)], 1),
        "heading": heading,
        **{name: at[name] for name in ("indices", "offset_2d", "size_2d", "offset_3d", "size_3d")},
    }
    return {name: value[None] for name, value in outputs.items()}


def _logits(heatmap: Tensor) -> Tensor:
    """Their sigmoid is the target. Nearly all cells are 0, so only the others are worth a logarithm."""
    logits = torch.full_like(heatmap, -torch.inf)
    drawn = heatmap.nonzero(as_tuple=True)
    logits[drawn] = torch.logit(heatmap[drawn])
    return logits


def _is_peak(heatmap: Tensor, place: tuple[int, int]) -> bool:
    """Whether no cell around ``place`` (channel, cell) is higher."""
    highest = F.max_pool2d(heatmap, 3, stride=1, padding=1)
    return bool(heatmap.flatten(1)[place] == highest.flatten(1)[place])


def _not_encoded(objects: Sequence[Object3d], encoded: np.ndarray, config: Dataset) -> dict[int, str]:
    """'outside' and what ``exclusion`` says, of labels of the writelist."""
    own = [line for line, obj in enumerate(objects) if obj.type in config.writelist]
    reasons = {line: exclusion(line, objects[line], config) for line in own}
    return {
        line: reason or "outside" for line, reason in reasons.items() if reason or not encoded[line]
    }
