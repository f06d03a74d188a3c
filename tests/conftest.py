"""Fixtures that several rooms share: a small KITTI tree made on the spot, and the real files where they are."""

import contextlib
import os
import signal
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

PROJECT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"
SHARED_KITTI = PROJECT.parent / "shared" / "kitti"
PATIENCE = 900  # seconds, only to end a test that hangs: the machine may be busy

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # as tools/predict.py does; read at a process's first video
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as shells start what ends in &; processes made here inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

CALIB = "P2: 721.5377 0 609.5593 44.85728 0 721.5377 172.854 0.2163791 0 0 1 0.002745884\n"
LABELS = {
    "000000": [
        "Car 0.00 0 1.55 837.17 167.59 1005.44 328.39 1.67 1.67 3.48 3.91 1.62 9.44 1.94",
        "Car 0.00 0 1.23 740.85 172.67 815.83 220.78 1.66 1.56 3.70 6.13 1.65 26.83 1.46",
        "Pedestrian 0.00 0 0.31 420.00 160.00 450.00 240.00 1.75 0.60 0.80 -4.60 1.70 16.20 0.03",
        "DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10",
    ],
    "000001": ["DontCare -1 -1 -10 503.89 169.71 590.61 190.13 -1 -1 -1 -1000 -1000 -1000 -10"],
    "000002": [],
    "000003": ["Car 0.00 0 -1.91 626.71 177.29 676.63 203.69 1.42 1.62 3.99 2.31 1.69 41.67 -1.86"],
}


def wait_until(condition, *processes, said=lambda: "") -> None:
    """Wait while the processes run; ``said`` gives their output, for the message of a failure."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert all(process.poll() is None for process in processes), f"ended too early:\n{said()}"
        assert time.monotonic() < end, f"still not so:\n{said()}"
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    own: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it may have ended meanwhile
            own += map(int, thread.read_text().split())
    return own + [k for child in own for k in descendants(child)]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def tiny_kitti(tmp_path: Path) -> Path:
    """Four frames in KITTI's layout, one with DontCare only and one with an empty label file; and two test frames."""
    root = tmp_path / "KITTI"
    rng = np.random.default_rng(0)
    for split, ids in (("training", list(LABELS)), ("testing", ["000000", "000001"])):
        for name in ("image_2", "calib") + (("label_2",) if split == "training" else ()):
            (root / split / name).mkdir(parents=True)
        for frame_id in ids:
            image = rng.integers(0, 255, (375, 1242, 3), dtype=np.uint8)
            cv2.imwrite(str(root / split / "image_2" / f"{frame_id}.png"), image)
            (root / split / "calib" / f"{frame_id}.txt").write_text(CALIB)
            if split == "training":
                lines = "".join(line + "\n" for line in LABELS[frame_id])
                (root / split / "label_2" / f"{frame_id}.txt").write_text(lines)
    (root / "ImageSets").mkdir()
    for split in ("train", "val", "trainval"):
        (root / "ImageSets" / f"{split}.txt").write_text("".join(f"{i}\n" for i in LABELS))
    (root / "ImageSets" / "test.txt").write_text("000000\n000001\n")
    return root


@pytest.fixture(scope="session")
def real_frames() -> Path:
    """The eight complete real frames, as a folder with ``training``."""
    if not (SHARED_KITTI / "frames" / "training").is_dir():
        pytest.skip("real KITTI frames (../shared/kitti/frames) are not here")
    return SHARED_KITTI / "frames"


@pytest.fixture(scope="session")
def real_labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with label_2 and calib of all 7481 real frames."""
    archive = SHARED_KITTI / "labels_calib.tar.xz"
    if not archive.is_file():
        pytest.skip("real KITTI labels (../shared/kitti/labels_calib.tar.xz) are not here")
    folder = tmp_path_factory.mktemp("labels_calib")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / "training"
