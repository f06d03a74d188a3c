"""What the training targets of a whole split hold: how many labels of each class are trained on, and why others not."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..config import Dataset
from ..datasets.augmentation import Augmentation
from ..datasets.split_labels import LabelledImage
from ..datasets.targets import explain_exclusion, locate
from ..ops.text import counted, text_table
from ..structures import Object3d
from ..structures.object3d import TRAINING_DIFFICULTIES

_, _MIN_HEIGHT, _MAX_TRUNCATED, _MAX_OCCLUDED = TRAINING_DIFFICULTIES[-1]
TRAINED = "trained on"
WITHOUT_BOX = "without a 2D box (x2 > x1, y2 > y1)"
PROTOCOL = (  # reasons that KITTI's protocol has as well: such labels are ignored in an evaluation too
    *(f"lower than {_MIN_HEIGHT} px", f"truncated more than {_MAX_TRUNCATED:g}"),
    f"occluded more than {_MAX_OCCLUDED}",
)


@dataclass(frozen=True)
class Census:
    """Number of labels by class and by what becomes of them."""

    split: str
    counts: dict[str, Counter[str]]  # for each class of the writelist, by ``TRAINED`` or the reason
    other_types: Counter[str]  # of the types that are not in the writelist

    def describe(self, name: str) -> str:
        """'Car: 23000 of 28742 labels are trained on (left out: 5742 lower than 25 px)'."""
        counts = self.counts[name]
        lost = f" (left out: {self._list_reasons(name)})" if counts.total() > counts[TRAINED] else ""
        return f"{name}: {counts[TRAINED]} of {counts.total()} labels are {TRAINED}{lost}"

    def _list_reasons(self, name: str) -> str:
        return ", ".join(f"{n} {reason}" for reason, n in self.counts[name].most_common() if reason != TRAINED)

    def require_objects(self, unreadable: Sequence[Exception] = ()) -> None:
        """Raise ValueError for a class of the writelist of which no label is trained on.

        ``unreadable``: the errors of frames that cannot be read, whose labels are not counted.
        """
        lost = f"; unreadable: {counted(len(unreadable), 'frame')}, the first: {unreadable[0]}" if unreadable else ""
        for name, counts in self.counts.items():
            if not counts[TRAINED]:
                found = ", ".join(f"{kind!r} {number}" for kind, number in self.types_found().most_common(12))
                reasons = f"{counts.total()} labels: {self._list_reasons(name) or 'none'}"
                raise ValueError(
                    f"not one object of {name} in split {self.split!r} is trained on (dataset.writelist); {reasons}; "
                    f"types found: {found or 'none'}{lost}"
                )

    def types_found(self) -> Counter[str]:
        """Number of labels of each type."""
        own = Counter({name: counts.total() for name, counts in self.counts.items() if counts})
        return own + self.other_types

    def loses_many(self) -> bool:
        """Whether a class loses more than a tenth of its labels, or more than 70 % for a reason in ``PROTOCOL``.

        KITTI's own Car, Pedestrian and Cyclist lose 23, 4 and 26 % for those.
        """
        return any(_loses_many(counts) for counts in self.counts.values())

    def summary(self) -> str:
        """All counts in one line."""
        return "; ".join([*map(self.describe, self.counts), self._list_other_types()])

    def table(self) -> str:
        """All counts as text, one column for each class of the writelist."""
        reasons = list(dict.fromkeys([TRAINED, *(reason for counts in self.counts.values() for reason in counts)]))
        table = text_table([
            [f"split {self.split}", *self.counts],
            ["labels", *(counts.total() for counts in self.counts.values())],
            *([f"  {reason}", *(counts[reason] for counts in self.counts.values())] for reason in reasons),
        ])  # fmt: skip
        return f"{table}\n{self._list_other_types()}"

    def _list_other_types(self) -> str:
        shown = {name: name if name.isidentifier() else repr(name) for name in self.other_types}
        others = ", ".join(f"{shown[name]} {number}" for name, number in self.other_types.most_common())
        return f"other types: {others or 'none'}"


def take_census(split: str, images: Iterable[LabelledImage], config: Dataset) -> Census:
    """Count the labels of whole images, without augmentation, by the rules of ``encode_targets``."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in config.writelist}
    others: Counter[str] = Counter()
    texts = {
        "line": f"after line {config.max_objects} (dataset.max_objects)",
        "size": "without a 3D size",
        "near": f"nearer than {config.min_depth:g} m (dataset.min_depth)",
        "far": f"beyond {config.max_depth:g} m (dataset.max_depth)",
        "outside": "outside the network input",
        None: TRAINED,
    }
    for size, calibration, objects in images:
        whole = Augmentation.identity(size)
        for line, obj in enumerate(objects):
            if obj.type not in counts:
                others[obj.type] += 1
                continue
            reason = explain_exclusion(line, obj, config)
            if reason is None and locate(obj, calibration, whole, config) is None:
                reason = "outside"
            counts[obj.type][_explain_difficulty(obj) if reason == "difficulty" else texts[reason]] += 1
    return Census(split, counts, others)


def _explain_difficulty(obj: Object3d) -> str:
    """Which limit of 'Hard' a label of difficulty 'UnKnown' exceeds."""
    low, truncated, occluded = PROTOCOL
    if obj.bbox_img[2] <= obj.bbox_img[0] or obj.bbox_img[3] <= obj.bbox_img[1]:
        return WITHOUT_BOX
    if obj.bbox_img[3] - obj.bbox_img[1] + 1 < _MIN_HEIGHT:
        return low
    return truncated if obj.truncated > _MAX_TRUNCATED else occluded


def _loses_many(counts: Counter[str]) -> bool:
    ignored = sum(counts[reason] for reason in PROTOCOL)
    others = counts.total() - ignored - counts[TRAINED]
    return others > counts.total() / 10 or ignored > 0.7 * counts.total()
