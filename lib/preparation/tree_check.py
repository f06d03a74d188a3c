"""Check all files of a KITTI tree, as tools/check_dataset.py does."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..config import Dataset
from ..config.checks import require, require_split
from ..datasets.consistency import check_consistency
from ..datasets.images import find_image, find_second_images
from ..datasets.kitti import find_data_dir, find_label_dir, find_lists
from ..datasets.object_depth import PAINTED_TYPES, find_object_depth
from ..datasets.split_labels import LabelledImage
from ..ops.text import counted
from ..structures import KITTI_TYPES, UNKNOWN_ALPHA
from ..system.commands import show_progress
from ..system.machine import available_cores
from ..system.threads import map_ahead
from .census import TRAINED, take_census
from .file_checks import Fault, check_calibration, check_depth_map, check_image, check_label, check_overlap, check_split
from .originals import compare_with_originals

SPLITS = ("train", "val", "trainval", "test")  # checked where no split is chosen
TRAINING_SPLITS = ("train", "trainval")


@dataclass
class DatasetCheck:
    """All faults of a data set."""

    faults: list[Fault]
    n_frames: int
    left_out: str = ""  # why the test split was not checked
    notes: list[str] = field(default_factory=list)  # what is not wrong but worth knowing, and a census of each split

    def report(self, show: int) -> str:
        """Number and first ``show`` faults of each kind (0: all of them)."""
        lines = [self.left_out] if self.left_out else []
        counts = Counter(fault.kind for fault in self.faults)
        for kind, count in counts.most_common():
            lines.append(f"{kind}: {count}")
            lines += [f"  {fault}" for fault in [f for f in self.faults if f.kind == kind][: show or None]]
            if show and count > show:
                lines.append(f"  .. and {count - show} more; --show 0 lists them all")
        n = len(self.faults)
        verdict = f"{counted(n, 'fault')} of {counted(len(counts), 'kind')}" if n else "nothing is wrong"
        return "\n".join([*lines, *self.notes, f"{counted(self.n_frames, 'frame')} checked: {verdict}"])


def check_dataset(
    root: Path, config: Dataset, split: str | None = None, own_splits: tuple[str, ...] = (), verify: bool = False
) -> DatasetCheck:
    """Check the split files and every file of their frames, in threads, with a progress bar.

    ``config``: its class names are accepted types besides KITTI's; its writelist and limits decide what is counted.
    ``split``: a list in ImageSets; None: ``own_splits`` and all of ``SPLITS`` that there are. Then a test split
    without its images is left out. ``own_splits``: for training, where every class of the writelist must have an object
    to train on, and for evaluation. ``verify``: compare the training images of ``split``, by default all, with KITTI's.
    Raises FileNotFoundError where there is no tree in KITTI's layout, ValueError for a ``split`` that is not accepted.
    """
    if split is not None:
        require_split("--split", split)
        require(not verify or split != "test", "--verify --split", split, "a list of training images")
    lists = find_lists(root)
    present = [name for name in SPLITS if (lists / f"{name}.txt").exists()]
    splits = [split] if split else list(dict.fromkeys((*present, *own_splits)))
    if not splits:
        raise FileNotFoundError(f"{lists}: none of {', '.join(f'{name}.txt' for name in SPLITS)}; name one by --split")
    result = DatasetCheck([], 0)
    ids = _check_lists(result, lists, splits, own_splits)
    counts: list[str] = []
    if verify:
        found, sentence = compare_with_originals(root, ids[split].keys() if split else None)
        result.faults += found
        counts.append(sentence)
    frames: list[tuple[Path, str]] = []
    for half in ("training", "testing"):
        chosen = sorted({i for name in splits if (name == "test") == (half == "testing") for i in ids[name]})
        if half == "testing" and not split and not any((place / half).is_dir() for place in (root, root / "object")):
            result.left_out = f"{root / half} is not there; the test split is left out" if chosen else ""
        elif chosen:
            data_dir = find_data_dir(root, half)
            frames += [(data_dir, frame_id) for frame_id in chosen]
            folder = data_dir / "image_2"
            for frame_id, several in find_second_images(os.listdir(folder), set(chosen)).items():
                message = f"{' and '.join(several)} exist; {find_image(folder, frame_id).name} is used"
                result.faults.append(Fault("two images of a frame", folder, 0, message))
    types = tuple(dict.fromkeys((*KITTI_TYPES, *config.class_names)))
    faults, labelled_images = _check_frames(frames, types, config.max_image_pixels)
    result.faults += sorted(faults)
    result.n_frames = len(frames)
    for name in splits:
        labelled = [frame_id for frame_id in ids[name] if name != "test" and frame_id in labelled_images]
        halves = ids.get("train", {}) | ids.get("val", {})
        trained_on = name in own_splits[:1]
        joined = name == "trainval" and not trained_on and ids[name].keys() <= halves.keys()  # checked as train and val
        if labelled and not joined:
            images = {frame_id: labelled_images[frame_id] for frame_id in labelled}
            labels_dir = find_label_dir(find_data_dir(root, "training"))
            _check_labels_together(result, name, labels_dir, images, config, trained_on)
    result.notes += counts
    return result


def _check_lists(
    result: DatasetCheck, lists: Path, splits: Sequence[str], own_splits: tuple[str, ...]
) -> dict[str, dict[str, int]]:
    """Line of each frame id by split; faults of the lists are added to ``result``."""
    ids: dict[str, dict[str, int]] = {}
    for name in splits:
        found, ids[name] = check_split(lists / f"{name}.txt")
        result.faults += found
    for pair in dict.fromkeys((("train", "val"), own_splits)):
        if len(ids.keys() & set(pair) - {"trainval", "test"}) == 2:  # ids of the test split are those of other images
            first, second = pair
            result.faults += check_overlap(lists / f"{first}.txt", lists / f"{second}.txt", ids[first], ids[second])
    return ids


def _check_frames(
    frames: Sequence[tuple[Path, str]], types: Sequence[str], max_pixels: int
) -> tuple[list[Fault], dict[str, LabelledImage]]:
    """All faults, and by frame id what could be read of frames with labels."""
    threads = min(available_cores(), 16)
    checked = map_ahead(lambda frame: check_frame(*frame, types, max_pixels), frames, threads, 2 * threads)
    bar = show_progress(checked, "checking", len(frames), leave=False)
    faults, images = [], {}
    for (_, frame_id), (found, image) in zip(frames, bar, strict=True):
        faults += found
        if image is not None:
            images[frame_id] = image
    return faults, images


def _check_labels_together(
    result: DatasetCheck, split: str, path: Path, images: dict[str, LabelledImage], config: Dataset, require_all: bool
) -> None:
    """Add what the labels of a split as a whole tell to ``result``; ``require_all``: every class must be trained on."""
    labels = [(size, camera, obj, f"{i}.txt") for i, (size, camera, objects) in images.items() for obj in objects]
    consistency = check_consistency(label[:3] for label in labels)
    message = consistency.describe()
    if consistency.systematic:
        result.faults.append(Fault("columns contradict each other", path, 0, f"split {split}: {message}"))
    elif message:
        first = labels[min((*consistency.alpha, *consistency.box))][3]
        result.notes.append(f"split {split}: {message}; the first in {first}")
    unknown = sum(obj.alpha == UNKNOWN_ALPHA and min(obj.dimensions) > 0 for _, _, obj, _ in labels)
    if unknown:
        result.notes.append(
            f"split {split}: alpha of {unknown} labels is {UNKNOWN_ALPHA:g}, unknown: training takes it from "
            "rotation_y and the position, AOS is not computed"
        )
    scored = sum(obj.score is not None for _, _, obj, _ in labels)
    if scored:
        result.notes.append(f"split {split}: the 16th column, a score, of {scored} of the labels is not used")
    census = take_census(split, images.values(), config)
    empty = [name for name, counts in census.counts.items() if not counts[TRAINED]]
    if empty and (require_all or (split in TRAINING_SPLITS and len(empty) == len(census.counts))):
        result.faults.append(Fault("nothing to train on", path, 0, f"split {split}: {census.summary()}"))
    result.notes.append(f"\n{census.table()}")


def check_frame(
    data_dir: Path, frame_id: str, types: Sequence[str] = KITTI_TYPES, max_pixels: int | None = Dataset.max_image_pixels
) -> tuple[list[Fault], LabelledImage | None]:
    """Check every file of a frame in ``training`` or ``testing``, which has no labels.

    The image is decoded, and depth maps are compared with newly painted ones. Also returns image size, camera and
    labels that can be read, None where the first two are not known and for ``testing``.
    """
    faults, size = check_image(find_image(data_dir / "image_2", frame_id), max_pixels)
    found, calibration = check_calibration(data_dir / "calib" / f"{frame_id}.txt")
    faults += found
    if data_dir.name == "testing":
        return faults, None
    label = find_label_dir(data_dir) / f"{frame_id}.txt"
    found, objects = check_label(label, size, types)
    faults += found
    for folder in (data_dir / name for name in PAINTED_TYPES):
        if folder.is_dir():
            faults += check_depth_map(find_object_depth(folder, frame_id), label, None if found else objects, size)
    return faults, (size, calibration, objects) if size and calibration else None
