"""Planning and writing a whole data set, frame by frame; every frame is a pure function of (plan, position)."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2

from ..system.files import write_file
from ..system.machine import leave_ctrl_c_to_parent
from .files import (
    NATIVE_SIZE,
    calibration_text,
    encode_png,
    label_text,
)
from .labels import DONT_CARE_BEYOND_M
from .layouts import layout_scene, random_scene
from .render import RenderedFrame, render
from .scene import Scene

logger = logging.getLogger(__name__)
MARKER = "synthetic.json"
"""written first; tells later calls that the folder's contents may be replaced"""
_OWN_FOLDERS = ("ImageSets", "training", "testing")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to write where."""

    out: Path
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]
    test_ids: tuple[str, ...]
    seed: int
    size: tuple[int, int] | None
    """(width, height) [px]; None: KITTI's own"""
    layouts: Path | None = None
    """label folder whose poses are used"""

    @property
    def frames(self) -> tuple[tuple[str, str], ...]:
        """(folder, id) of every frame to render."""
        labelled = (("training", i) for i in (*self.train_ids, *self.val_ids))
        return (*labelled, *(("testing", i) for i in self.test_ids))


def make_plan(
    out: Path,
    counts: tuple[int, int, int],
    seed: int = 0,
    size: tuple[int, int] | None = None,
    layouts: Path | None = None,
) -> Plan:
    """``counts``: frames in (train, val, test). Random data sets number train first, then val, both in ``training``;
    test frames have a numbering of their own, in ``testing``.

    With ``layouts`` frames keep the ids of their label files: the first ones of ``ImageSets/{train,val}.txt`` beside
    the ``training`` folder where those lists exist, else the first label files by name. Raises ValueError or
    FileNotFoundError when that many do not exist.
    """
    train, val, test = counts
    if layouts is None:
        ids = [f"{i:06d}" for i in range(train + val)]
        tests = tuple(f"{i:06d}" for i in range(test))
        return Plan(out, tuple(ids[:train]), tuple(ids[train:]), tests, seed, size)
    if not layouts.is_dir():
        raise FileNotFoundError(f"{layouts}: no such folder; --layouts expects KITTI's training/label_2")
    calib = layouts.parent / "calib"
    if not calib.is_dir():
        raise FileNotFoundError(f"{calib}: no such folder; --layouts needs the calib folder beside {layouts.name}")
    chosen = _layout_ids(layouts, counts)
    for name in (name for part in chosen for name in part):
        for path in (layouts / f"{name}.txt", calib / f"{name}.txt"):
            if not path.is_file():
                raise FileNotFoundError(f"{path}: no such file; frame {name} needs a label and a calibration")
    return Plan(out, *chosen, seed, size, layouts)


def _layout_ids(
    layouts: Path, counts: tuple[int, int, int]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    lists = layouts.parent.parent / "ImageSets"
    names = sorted(path.stem for path in layouts.glob("*.txt"))
    if all((lists / f"{split}.txt").is_file() for split in ("train", "val")):
        train, val = ((lists / f"{split}.txt").read_text(encoding="ascii").split() for split in ("train", "val"))
        rest = sorted(set(names) - set(train[: counts[0]]) - set(val[: counts[1]]))
    else:
        train, val, rest = names[: counts[0]], names[counts[0] : sum(counts[:2])], names[sum(counts[:2]) :]
    for wanted, found, what in zip(counts, (train, val, rest), ("train", "val", "test"), strict=True):
        if len(found) < wanted:
            raise ValueError(f"{layouts}: {wanted} {what} frames wanted, but only {len(found)} label files are left")
    return tuple(train[: counts[0]]), tuple(val[: counts[1]]), tuple(rest[: counts[2]])


def scene_of(plan: Plan, folder: str, frame_id: str) -> Scene:
    """The scene of one frame of the plan."""
    if plan.layouts is not None:
        calib = plan.layouts.parent / "calib" / f"{frame_id}.txt"
        return layout_scene(plan.layouts / f"{frame_id}.txt", calib, plan.seed, plan.size)
    return random_scene(plan.seed, int(frame_id), plan.size or NATIVE_SIZE, stream=int(folder == "testing"))


def render_frame(plan: Plan, folder: str, frame_id: str) -> tuple[Scene, RenderedFrame]:
    """Scene and image of one frame of the plan. Real layouts keep their far labels, random ones DontCare them."""
    scene = scene_of(plan, folder, frame_id)
    return scene, render(scene, math.inf if plan.layouts is not None else DONT_CARE_BEYOND_M)


def write_frame(plan: Plan, folder: str, frame_id: str) -> int:
    """Render and write one frame; returns the number of objects labelled (DontCare not counted)."""
    scene, frame = render_frame(plan, folder, frame_id)
    root = plan.out / folder
    write_file(root / "image_2" / f"{frame_id}.png", encode_png(frame.image_bgr))
    text = calibration_text(scene.calibration.P2, scene.size)
    write_file(root / "calib" / f"{frame_id}.txt", text.encode("ascii"))
    if folder == "training":
        write_file(root / "label_2" / f"{frame_id}.txt", label_text(frame.objects).encode("ascii"))
    return sum(item.type != "DontCare" for item in frame.objects)


def prepare_folder(plan: Plan, force: bool) -> None:
    """Make the folders. Raises FileExistsError when ``out`` holds anything and ``force`` is not given, or when it
    holds a data set that is not this tool's own (real KITTI, say), which is never removed."""
    out = plan.out
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out}: is a file; --out must be a folder")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise FileExistsError(f"{out}: folder is not empty; choose another one or use --force to replace it")
        own = (out / MARKER).is_file()
        present = [name for name in _OWN_FOLDERS if (out / name).exists()]
        if present and not own:
            raise FileExistsError(f"{out}: holds {', '.join(present)} not written by this tool; remove them yourself")
        for name in present:
            shutil.rmtree(out / name)
    out.mkdir(parents=True, exist_ok=True)
    facts = {"seed": plan.seed, "size": plan.size, "layouts": str(plan.layouts) if plan.layouts else None}
    write_file(out / MARKER, (json.dumps(facts) + "\n").encode("ascii"))
    for folder, parts in (("training", ("image_2", "calib", "label_2")), ("testing", ("image_2", "calib"))):
        for part in parts:
            (out / folder / part).mkdir(parents=True, exist_ok=True)
    (out / "ImageSets").mkdir(exist_ok=True)


def write_frames(plan: Plan, workers: int) -> Iterator[int]:
    """Write all frames, yielding the number of labelled objects of each; then the split lists, so that a data set
    with lists is a complete one. The files do not depend on ``workers``."""
    if workers <= 1:
        for folder, frame_id in plan.frames:
            yield write_frame(plan, folder, frame_id)
    else:
        # spawn, not fork: OpenCV's threads do not survive a fork
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_begin_worker) as pool:
            folders, ids = zip(*plan.frames, strict=True) if plan.frames else ((), ())
            yield from pool.map(write_frame, [plan] * len(ids), folders, ids, chunksize=4)
    lists = {"train": plan.train_ids, "val": plan.val_ids, "test": plan.test_ids}
    lists["trainval"] = tuple(sorted(plan.train_ids + plan.val_ids))
    for split, members in lists.items():
        text = "".join(f"{frame_id}\n" for frame_id in members)
        write_file(plan.out / "ImageSets" / f"{split}.txt", text.encode("ascii"))
    logger.info("%d frames written to %s", len(plan.frames), plan.out)


def _begin_worker() -> None:
    leave_ctrl_c_to_parent()
    cv2.setNumThreads(1)  # the processes already share the cores among them
