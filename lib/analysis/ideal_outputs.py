"""Ideal outputs: a frame's own targets, read at the heatmap's peaks, in the form that the decoder takes.

n: number of peaks. A label is identified by its line in the label file, counted from 0; a line is also a target slot.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Dataset
from ..datasets.augmentation import Augmentation
from ..datasets.targets import encode_targets, explain_exclusion
from ..ops.angles import NUM_HEADING_BINS
from ..ops.depth import encode_depth
from ..ops.feature_map import find_peaks
from ..structures import FrameInfo, Object3d

_STEP = 1e-5
"""between two peaks: above float32's rounding error; 49 steps are less than a peak's difference to the next cell"""


class IdealOutputs(NamedTuple):
    outputs: dict[str, Tensor]  # input of ``decode_detections``, (1, n, ..), nearest object first
    lines: list[int]  # the label of each of the n peaks
    lost: dict[int, str]
    """reason why a label of the writelist is lost, by its line: a value of ``explain_exclusion``, 'outside', 'cell',
    'neighbour' or 'topk'. A 'cell' label can have a peak in another class, with the values of the nearer object"""


def ideal_outputs(frame: FrameInfo, objects: Sequence[Object3d], config: Dataset, topk: int) -> IdealOutputs:
    """Encode the labels of a whole image, use the target heatmap as the output, and read the targets at its peaks.

    Each head has one value per cell: where several labels share a cell, it is the value of the nearest one. All peaks
    of a target heatmap are 1, and equal neighbours would both pass the 3x3 suppression, which no real output does.
    Therefore peaks get heights that decrease by 1e-5 from near to far objects. Peaks without other targets (vans drawn
    by ``class_merging``) are left out.
    """
    targets = encode_targets(objects, frame.calibration, Augmentation.identity(frame.image_size), config)
    slots = np.flatnonzero(targets["mask_2d"]).tolist()
    places = {slot: (config.class_names.index(objects[slot].type), int(targets["indices"][slot])) for slot in slots}
    far_to_near = sorted(slots, key=lambda slot: (-objects[slot].location_cam[2], -slot))
    nearest_in_cell = {places[slot][1]: slot for slot in far_to_near}
    nearest_at = {places[slot]: slot for slot in far_to_near}

    heatmap = torch.from_numpy(targets["heatmap"]).flatten(1)
    for rank, slot in zip(reversed(range(len(slots))), far_to_near, strict=True):
        heatmap[places[slot]] = 1 - _STEP * rank
    maps = heatmap.view(targets["heatmap"].shape)
    _, classes, cells = find_peaks(maps.logit()[None], topk)
    found = [place for place in zip(classes[0].tolist(), cells[0].tolist(), strict=True) if place in nearest_at]
    highest = F.max_pool2d(maps, 3, stride=1, padding=1).flatten(1)

    unplaced = {k: obj for k, obj in enumerate(objects) if obj.type in config.writelist and k not in places}
    lost = {line: explain_exclusion(line, obj, config) or "outside" for line, obj in unplaced.items()}
    for slot, place in places.items():
        if nearest_in_cell[place[1]] != slot:
            lost[slot] = "cell"
        elif place not in found:
            lost[slot] = "topk" if heatmap[place] == highest[place] else "neighbour"
    outputs = targets_to_outputs(targets, [nearest_in_cell[cell] for _, cell in found], [k for k, _ in found])
    return IdealOutputs(outputs, [nearest_at[place] for place in found], lost)


def targets_to_outputs(targets: dict[str, np.ndarray], slots: list[int], classes: list[int]) -> dict[str, Tensor]:
    """Code the targets of n slots as input of ``decode_detections``, (1, n, ..); ``classes``: those of the peaks.

    Heatmap values are 1, log variances of the depth 0.
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
