"""Names and numbers of KITTI's protocol that are not computed: types, classes, difficulties, metrics, overlaps."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from .reading import canonical_names

CLASSES = ("Car", "Pedestrian", "Cyclist")  # those that KITTI evaluates
NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}  # so similar that finding one is neither right nor wrong
TYPE_NAMES = (*CLASSES, *NEIGHBOURS.values(), "DontCare")  # all that the protocol distinguishes, by their codes

DIFFICULTIES = ("easy", "moderate", "hard")
MIN_HEIGHT = {"easy": 40, "moderate": 25, "hard": 25}  # [px] of the 2D box
MAX_OCCLUDED = {"easy": 0, "moderate": 1, "hard": 2}
MAX_TRUNCATED = {"easy": 0.15, "moderate": 0.3, "hard": 0.5}

METRICS = ("bbox", "aos", "bev", "3d")  # 2D box, average orientation similarity, bird's eye view, 3D box
METRIC_TITLES = {"bbox": "2D", "aos": "AOS", "bev": "BEV", "3d": "3D"}
N_SAMPLES = 41  # recall is sampled at 0, 1/40, .. 1
# the samples of which an average precision is the mean; R11: before October 2019
RECALLS = {"R40": tuple(range(1, N_SAMPLES)), "R11": tuple(range(0, N_SAMPLES, 4))}
AVERAGES = (*RECALLS, "all")  # 'all': every score is a threshold; the area under interpolated precision over recall
DISTANCE_BANDS = ((0.0, 30.0), (30.0, 50.0), (50.0, 70.0))  # (near, far) [m of depth z]; not part of KITTI's protocol

Band = tuple[float, float]
# 'official' or 'loose' -> class -> 'bbox', 'bev' or '3d' -> a match needs an overlap above this
MinOverlaps = Mapping[str, Mapping[str, Mapping[str, float]]]
OwnOverlaps = Mapping[str, tuple[float, float]]  # of a class that KITTI does not evaluate: official and loose overlap
NO_OVERLAPS: OwnOverlaps = MappingProxyType({})
DEFAULT_OVERLAPS = (0.5, 0.25)  # those of Pedestrian and Cyclist, for classes without overlaps of their own


def _min_overlaps(pairs: OwnOverlaps) -> dict[str, dict[str, dict[str, float]]]:
    """The loose overlap is for BEV and 3D only."""
    return {
        "official": {cls: dict.fromkeys(("bbox", "bev", "3d"), strict) for cls, (strict, _) in pairs.items()},
        "loose": {cls: {"bbox": strict, "bev": loose, "3d": loose} for cls, (strict, loose) in pairs.items()},
    }


OVERLAPS: MinOverlaps = _min_overlaps({"Car": (0.7, 0.5), "Pedestrian": (0.5, 0.25), "Cyclist": (0.5, 0.25)})


# (overlap, metric) of different figures: in 2D, loose is official
DISTINCT = tuple((o, m) for o in OVERLAPS for m in METRICS if o == "official" or m in ("bev", "3d"))


def matched_by(metric: str) -> str:
    """The metric in which the matches of ``metric`` are found."""
    return "bbox" if metric == "aos" else metric


def overlaps_for(classes: Sequence[str], own: OwnOverlaps = NO_OVERLAPS) -> MinOverlaps:
    """``OVERLAPS``, with those of further ``classes``. Raises ValueError for overlaps that cannot be used."""
    pairs = {name: own.get(name, DEFAULT_OVERLAPS) for name in classes if name not in CLASSES or name in own}
    for name, (strict, loose) in pairs.items():
        if not 0 <= loose <= strict < 1:
            raise ValueError(f"overlaps of {name}: expected 0 <= loose <= official < 1, got {strict:g}, {loose:g}")
    further = _min_overlaps(pairs)
    return {kind: {**minimums, **further[kind]} for kind, minimums in OVERLAPS.items()}


def normalise_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """``classes`` without repetitions, KITTI's types in KITTI's spelling. Raises ValueError for impossible names."""
    if isinstance(classes, str) or not classes:
        raise ValueError(f"classes must be a sequence of names such as {', '.join(CLASSES)}, got {classes!r}")
    by_lower = canonical_names(classes) | canonical_names()
    for name in classes:
        if not name.isascii() or len(name.split()) != 1 or name.lower() == "dontcare":
            raise ValueError(f"classes: {name!r} cannot be evaluated; a class is one ASCII word and not DontCare")
    return tuple(dict.fromkeys(by_lower.get(name.lower(), name) for name in classes))


def type_names_for(classes: Sequence[str]) -> tuple[str, ...]:
    """``TYPE_NAMES``, and after them those of ``classes`` that are not among them."""
    known = {name.lower() for name in TYPE_NAMES}
    return (*TYPE_NAMES, *(name for name in classes if name.lower() not in known))
