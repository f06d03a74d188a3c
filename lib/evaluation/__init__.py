"""Label files and result files -> average precision by KITTI's protocol. numpy and numba only, nothing of lib.

Names are imported when they are first used, so that code that only reads label files does not load numba.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .annotations import Annotations, KittiObject, read_annotations
    from .bootstrap import Difference, Interval, Replicates, Resampling
    from .clusters import Clusters, cluster_frames
    from .dump import dump_matches
    from .iou import bbox_overlaps
    from .kitti import evaluate_annotations, evaluate_kitti, evaluate_objects, read_folders
    from .protocol import (
        AVERAGES,
        CLASSES,
        DIFFICULTIES,
        DISTANCE_BANDS,
        METRIC_TITLES,
        METRICS,
        NO_OVERLAPS,
        OVERLAPS,
        RECALLS,
        TYPE_NAMES,
        Band,
        OwnOverlaps,
        type_names_for,
    )
    from .result import Curve, EqualScores, KittiResult
    from .rotated_iou import rotated_overlaps

__version__ = "1.0.0"  # of the distribution kitti-ap
__all__ = [
    "AVERAGES", "CLASSES", "DIFFICULTIES", "DISTANCE_BANDS", "METRICS", "METRIC_TITLES", "NO_OVERLAPS", "OVERLAPS",
    "RECALLS", "TYPE_NAMES", "Annotations", "Band", "Clusters", "Curve", "Difference", "EqualScores", "Interval",
    "KittiObject", "KittiResult", "OwnOverlaps", "Replicates", "Resampling", "bbox_overlaps", "cluster_frames",
    "dump_matches", "evaluate_annotations", "evaluate_kitti", "evaluate_objects", "read_annotations", "read_folders",
    "rotated_overlaps", "type_names_for",
]  # fmt: skip
_MODULES = ("protocol", "annotations", "clusters", "bootstrap", "result", "rotated_iou", "iou", "kitti", "dump")
"""in the order in which names are looked up; numba from rotated_iou on"""


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            members = vars(import_module(f".{module}", __name__))
            if name in members:
                globals()[name] = members[name]
                return members[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
