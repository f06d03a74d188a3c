"""Planning and writing a whole data set, frame by frame; every frame is a pure function of (plan, folder, id)."""

import logging
import math
import shutil
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from ..ops.text import counted
from ..structures import DRIVES_FILE
from ..structures.camera import KITTI_P2, KITTI_SIZE
from ..system.files import write_file, write_json
from ..system.machine import leave_ctrl_c_to_parent
from .layouts import layout_scene, random_scene, scale_P2
from .render import DONT_CARE_BEYOND_M, render
from .scene import ImageSize

logger = logging.getLogger(__name__)
MARKER = "synthetic.json"  # written first; a folder with this file may be replaced with --force
_FOLDERS = {"training": ("image_2", "calib", "label_2"), "testing": ("image_2", "calib"), "ImageSets": ("",)}
# The rest of KITTI's training/calib/000010.txt, beside KITTI_P2: first the fourth columns of the other projections
_FOURTH_COLUMNS = {"P0": (0.0, 0.0, 0.0), "P1": (-387.5744, 0.0, 0.0), "P3": (-339.5242, 2.199936, 0.002729905)}
_EXTRINSICS = {
    "R0_rect": "0.9999239 0.00983776 -0.007445048 -0.009869795 0.9999421 -0.004278459 0.007402527 0.004351614 "
    "0.9999631",
    "Tr_velo_to_cam": "0.007533745 -0.9999714 -0.000616602 -0.004069766 0.01480249 0.0007280733 -0.9998902 -0.07631618 "
    "0.9998621 0.00752379 0.01480755 -0.2717806",
    "Tr_imu_to_velo": "0.9999976 0.0007553071 -0.002035826 -0.8086759 -0.0007854027 0.9998898 -0.01482298 0.3195559 "
    "0.002024406 0.01482454 0.9998881 -0.7997231",
}
Ids = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write where."""

    out: Path
    train_ids: Ids
    val_ids: Ids
    test_ids: Ids
    seed: int
    size: ImageSize | None  # None: KITTI's own
    layouts: Path | None = None  # label folder whose poses are used

    @property
    def frames(self) -> tuple[tuple[str, str], ...]:
        """(folder, id) of every frame to render."""
        return (*(("training", i) for i in self.train_ids + self.val_ids), *(("testing", i) for i in self.test_ids))


def make_plan(
    out: Path, counts: tuple[int, int, int], seed: int = 0, size: ImageSize | None = None, layouts: Path | None = None
) -> Plan:
    """``counts``: frames in (train, val, test). Random data sets number train first, then val, both in ``training``;
    test frames are numbered separately, in ``testing``.

    With ``layouts`` frames keep the ids of their label files: the first ones of ``ImageSets/{train,val}.txt`` beside
    the ``training`` folder where those lists exist, else the first label files by name. Raises ValueError for numbers
    that cannot be, and ValueError or FileNotFoundError when that many frames do not exist.
    """
    train, val, test = counts
    if train + val == 0 or not all(0 <= count <= 999_999 for count in counts):
        what = "0 to 999999 frames each, and at least one of --train and --val"
        raise ValueError(f"--train {train}, --val {val}, --test {test}: expected {what}")
    if seed < 0:
        raise ValueError(f"--seed must be >= 0, got {seed}")
    if layouts is None:
        ids = tuple(f"{i:06d}" for i in range(max(train + val, test)))
        return Plan(out, ids[:train], ids[train : train + val], ids[:test], seed, size)
    calib = layouts.parent / "calib"
    for folder, use in ((layouts, "expects KITTI's training/label_2"), (calib, "needs it beside the label folder")):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder; --layouts {use}")
    plan = Plan(out, *_layout_ids(layouts, counts), seed, size, layouts)
    for _, frame_id in plan.frames:
        for path in (layouts / f"{frame_id}.txt", calib / f"{frame_id}.txt"):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; frame {frame_id} needs a label and a calibration")
    return plan


def _layout_ids(layouts: Path, counts: tuple[int, int, int]) -> tuple[Ids, Ids, Ids]:
    lists = [layouts.parent.parent / "ImageSets" / f"{split}.txt" for split in ("train", "val")]
    names = sorted(path.stem for path in layouts.glob("*.txt"))
    if all(path.is_file() for path in lists):
        train, val = (path.read_text(encoding="ascii").split() for path in lists)
    else:
        train, val = names[: counts[0]], names[counts[0] : sum(counts[:2])]
    rest = sorted(set(names) - set(train[: counts[0]]) - set(val[: counts[1]]))
    for wanted, found, split in zip(counts, (train, val, rest), ("train", "val", "test"), strict=True):
        if len(found) < wanted:
            raise ValueError(f"{layouts}: {wanted} {split} frames wanted, but only {len(found)} label files are left")
    return tuple(train[: counts[0]]), tuple(val[: counts[1]]), tuple(rest[: counts[2]])


def write_frame(plan: Plan, folder: str, frame_id: str) -> int:
    """Render and write one frame; returns the number of labelled objects, DontCare not counted.

    Labels of real layouts keep their far objects; in random scenes these become DontCare.
    """
    if plan.layouts is None:
        scene = random_scene(plan.seed, int(frame_id), plan.size or KITTI_SIZE, stream=int(folder == "testing"))
        frame = render(scene, DONT_CARE_BEYOND_M)
    else:
        name = f"{frame_id}.txt"
        scene = layout_scene(plan.layouts / name, plan.layouts.parent / "calib" / name, plan.seed, plan.size)
        frame = render(scene, math.inf)
    root = plan.out / folder
    write_file(root / "image_2" / f"{frame_id}.png", encode_png(frame.image_bgr))
    write_file(root / "calib" / f"{frame_id}.txt", calibration_text(scene.calibration.P2, scene.size).encode("ascii"))
    if folder == "training":
        labels = "".join(f"{item.to_label_line()}\n" for item in frame.objects)
        write_file(root / "label_2" / f"{frame_id}.txt", labels.encode("ascii"))
    return sum(item.type != "DontCare" for item in frame.objects)


def calibration_text(P2: np.ndarray, size: ImageSize) -> str:
    """A whole KITTI calibration file, all seven keys, around the P2 (3, 4) of an image of ``size`` (width, height)."""
    entries = {"P0": P2, "P1": P2, "P2": P2, "P3": P2}
    for key, column in _FOURTH_COLUMNS.items():
        projection = np.column_stack([np.array(KITTI_P2)[:, :3], column])
        entries[key] = scale_P2(projection, KITTI_SIZE, size)
    entries.update((key, np.array(text.split(), dtype=np.float64)) for key, text in _EXTRINSICS.items())
    return "".join(f"{key}: {' '.join(f'{v:.12e}' for v in a.ravel())}\n" for key, a in entries.items()) + "\n"


def encode_png(image_bgr: np.ndarray) -> bytes:
    """PNG bytes with quick compression: sensor noise hardly compresses."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):  # OpenCV 4.12; the default tries five filters on every row
        options += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG]
    return cv2.imencode(".png", image_bgr, options)[1].tobytes()


def prepare_folder(plan: Plan, force: bool) -> None:
    """Make the folders.

    Raises FileExistsError when ``out`` is a file; when it is a folder with contents and ``force`` is not given; and
    when it holds a data set that this renderer did not write (real KITTI, say), which is never removed.
    """
    out = plan.out
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; --out must be a folder")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise FileExistsError(f"{out}: folder is not empty; choose another one or use --force to replace it")
        present = [name for name in _FOLDERS if (out / name).exists()]
        if present and not (out / MARKER).is_file():
            raise FileExistsError(f"{out}: holds {', '.join(present)} not written by this tool; remove them yourself")
        for name in present:
            shutil.rmtree(out / name)
        if present:
            (out / DRIVES_FILE).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    layouts = str(plan.layouts) if plan.layouts else None
    write_json(out / MARKER, {"seed": plan.seed, "size": plan.size, "layouts": layouts})
    for folder, parts in _FOLDERS.items():
        for part in parts:
            (out / folder / part).mkdir(parents=True, exist_ok=True)


def write_frames(plan: Plan, workers: int) -> Iterator[int]:
    """Write all frames and yield the number of labelled objects of each; then write the split lists, whose presence
    means that the data set is complete. The files do not depend on ``workers``."""
    if workers <= 1:
        for folder, frame_id in plan.frames:
            yield write_frame(plan, folder, frame_id)
    else:
        # spawn, not fork: OpenCV's threads do not survive a fork
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
            # not pool.map: where a process is killed, it cancels futures which the pool is just ending, and both wait
            parts = [plan.frames[k : k + 4] for k in range(0, len(plan.frames), 4)]
            try:
                futures = [pool.submit(_write_frames, plan, part) for part in parts]
                for future in futures:
                    yield from future.result()
            except BrokenExecutor:
                reason = "a process was killed, maybe since memory ran out"
                raise ConnectionError(f"{plan.out}: {reason}; repeat with --force and fewer --workers") from None
            finally:
                pool.shutdown(cancel_futures=True)  # the first error ends the work
    if plan.layouts is None:  # else the ids, and so the drives, are those of the layouts
        drives = "".join(f"{frame_id},scene_{frame_id}\n" for folder, frame_id in plan.frames if folder == "training")
        write_file(plan.out / DRIVES_FILE, f"id,drive\n{drives}".encode("ascii"))
    trainval = tuple(sorted(plan.train_ids + plan.val_ids))
    lists = {"train": plan.train_ids, "val": plan.val_ids, "test": plan.test_ids, "trainval": trainval}
    for split, members in lists.items():
        text = "".join(f"{frame_id}\n" for frame_id in members)
        write_file(plan.out / "ImageSets" / f"{split}.txt", text.encode("ascii"))
    logger.info("%s written to %s", counted(len(plan.frames), "frame"), plan.out)


def _write_frames(plan: Plan, frames: tuple[tuple[str, str], ...]) -> list[int]:
    return [write_frame(plan, folder, frame_id) for folder, frame_id in frames]


def _begin_worker() -> None:
    leave_ctrl_c_to_parent()
    cv2.setNumThreads(1)  # the processes already use all cores
