"""tools/check_dataset.py: planted faults are found, each by its kind, file and line; sound data has none."""

import csv
import hashlib
import json
import os
import shutil
import struct
import time
import zlib

import cv2
import numpy as np
import pytest

import make_obj_depth
from lib.preparation import originals
from lib.preparation.file_checks import check_calibration, check_label
from tests.conftest import CALIB, LABELS, SHARED_KITTI
from tools import check_dataset, make_synthetic_kitti


@pytest.fixture
def tree(tiny_kitti):
    """Frames 000000 and 000001 for training, 000002 and 000003 for validation, all with depth maps."""
    (tiny_kitti / "ImageSets/train.txt").write_text("000000\n000001\n")
    (tiny_kitti / "ImageSets/val.txt").write_text("000002\n000003\n")
    assert make_obj_depth.main(["--dataroot", str(tiny_kitti)]) == 0
    return tiny_kitti


def check(tree, *arguments):
    """Status and faults as (kind, path below the tree, line)."""
    out = tree.parent / "faults.json"
    status = check_dataset.main(["--dataroot", str(tree), "--json", str(out), *arguments])
    faults = json.loads(out.read_text())
    assert all(fault["message"] for fault in faults)
    return status, [(f["kind"], os.path.relpath(f["path"], tree), f["line"]) for f in faults]


def test_a_sound_tree_has_no_faults(tree, capsys):
    assert check(tree) == (0, [])
    assert "6 frames checked" in capsys.readouterr().out


def test_the_originals_are_told_from_other_images(tree, tmp_path, monkeypatch, capsys):
    images = tree / "training/image_2"
    digits = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in sorted(images.iterdir())}
    table = tmp_path / "drives.csv"
    rows = [f"{name},drive,0,{value}" for name, value in (digits | {"007480": "0" * 16}).items()]
    table.write_text("\n".join(["id,drive,raw_frame,image_2_sha256_16", *rows]))
    monkeypatch.setattr(originals, "CHECKSUMS", table)
    assert check(tree, "--split", "val", "--verify") == (0, [])
    assert "KITTI's originals: 2 images, 2 equal, 0 different, 0 missing" in capsys.readouterr().out
    cv2.imwrite(str(images / "000001.png"), cv2.imread(str(images / "000001.png")), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    missing = ("KITTI's image is missing", "training/image_2/007480.png", 0)
    assert check(tree) == (0, [])  # the same pixels: only a checksum finds it
    assert check(tree, "--verify") == (1, [("not KITTI's image", IMAGE, 0), missing])
    assert "KITTI's originals: 5 images, 3 equal, 1 different, 1 missing" in capsys.readouterr().out
    (tree / "ImageSets/own.txt").write_text("000001\n000003\n")
    table.write_text("\n".join(["id,drive,raw_frame,image_2_sha256_16", *rows[:2]]))
    assert check(tree, "--verify", "--split", "own") == (1, [("not KITTI's image", IMAGE, 0)])
    said = "1 image, 0 equal, 1 different, 0 missing; not KITTI's, and so not compared: 1 frame of the list"
    assert said in capsys.readouterr().out
    assert check_dataset.main(["--dataroot", str(tree), "--verify", "--split", "test"]) == 2
    assert "--verify --split must be a list of training images, got 'test'" in capsys.readouterr().err
    (tree / "ImageSets/own.txt").write_text("000003\n")
    assert check_dataset.main(["--dataroot", str(tree), "--verify", "--split", "own"]) == 2
    assert "no frame of this list has the id of a training frame of KITTI" in capsys.readouterr().err
    table.write_text("id,drive\n000000,drive\n")
    assert check_dataset.main(["--dataroot", str(tree), "--verify"]) == 2
    assert "drives.csv: no column image_2_sha256_16" in capsys.readouterr().err


def test_the_lists_of_a_configuration_are_checked(tree, tmp_path):
    yaml, lists = tmp_path / "x.yaml", tree / "ImageSets"
    yaml.write_text("dataset: {train_split: my_train}\ntester: {split: my_val}\n")
    (lists / "my_train.txt").write_text("000000\n000003\n")
    missing = ("missing file", "ImageSets/my_val.txt", 0)
    assert check(tree, "--config", str(yaml)) == (1, [missing])
    (lists / "my_val.txt").write_text("000002\n000003\n999999\n")
    status, faults = check(tree, "--config", str(yaml))
    assert status == 1 and ("frame in train and val", "ImageSets/my_val.txt", 2) in faults
    assert ("missing file", "training/image_2/999999.png", 0) in faults
    for name in ("my_train", "my_val"):
        (lists / f"{name}.txt").write_text("000000\n")
    yaml.write_text("dataset: {train_split: my_train}\ntester: {split: test}\n")
    assert check(tree, "--config", str(yaml)) == (0, [])  # the frames of the test split are others


@pytest.mark.kitti
def test_real_images_are_the_originals(real_frames, tmp_path, capsys):
    (tmp_path / "training").symlink_to(real_frames / "training")
    (tmp_path / "ImageSets").mkdir()
    ids = sorted(path.stem for path in (real_frames / "training/image_2").iterdir())
    (tmp_path / "ImageSets/own.txt").write_text("\n".join(ids))
    _, faults = check(tmp_path, "--verify", "--split", "own")
    assert [fault for fault in faults if "image" in fault[0]] == []
    assert "8 images, 8 equal, 0 different, 0 missing" in capsys.readouterr().out


def test_a_rendered_set_has_no_faults(tmp_path):
    out = tmp_path / "set"
    assert make_synthetic_kitti.main(["--out", str(out), "--train", "3", "--val", "2", "--size", "640x192"]) == 0
    assert make_obj_depth.main(["--dataroot", str(out)]) == 0
    assert check(out) == (0, [])


CAR, LABEL = LABELS["000000"][0], "training/label_2/000000.txt"
IMAGE, TEST_IMAGE = "training/image_2/000001.png", "testing/image_2/000001.png"
CALIBRATION, DEPTH = "training/calib/000003.txt", "training/obj_depth_all/000000.npy"
TRAIN, VAL = "ImageSets/train.txt", "ImageSets/val.txt"


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


HUGE_PNG = b"\x89PNG\r\n\x1a\n" + b"".join(
    png_chunk(kind, content)
    for kind, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"\0" * 1000)),
        (b"IEND", b""),
    )
)
WRITTEN = {
    # file, what is written into it (None: it is deleted), and the fault's kind and line
    "image missing": (IMAGE, None, "missing file", 0),
    "calibration missing": ("testing/calib/000001.txt", None, "missing file", 0),
    "label missing": (LABEL, None, "missing file", 0),
    "depth map missing": (DEPTH, None, "missing file", 0),
    "not an image": (IMAGE, b"GIF89a", "unreadable image", 0),
    "a header of another size": (TEST_IMAGE, HUGE_PNG, "unreadable image", 0),
    "not a depth map": (DEPTH, b"\x93NUMPY", "unreadable depth map", 0),
    "not ASCII": (LABEL, "Car \u00e9\n", "malformed line", 1),
    "twice the same object": (LABEL, f"{CAR}\n{CAR}\n", "repeated object", 2),
    "no P2": (CALIBRATION, CALIB.replace("P2", "P3"), "malformed calibration", 0),
    "11 numbers": (CALIBRATION, CALIB.replace(" 0.002745884", ""), "malformed calibration", 0),
    "rotated": (CALIBRATION, CALIB.replace("0 0 1 0.0027", "0 0.3 1 0.0027"), "malformed calibration", 0),
    "id twice": (TRAIN, "000000\n000001\n000000\n", "duplicate id", 3),
    "no id": (VAL, "000002\n000003.png\n", "malformed split", 2),
    "empty split": (VAL, "", "malformed split", 0),
    "in train and val": (VAL, "000002\n000001\n000003\n", "frame in train and val", 2),
}
CHANGED = {
    # what is replaced by what in the line of a car, and the fault's kind
    "a column missing": (" 1.94", "", "malformed line"),
    "a word for a number": ("9.44", "near", "not a finite number"),
    "a number of Python alone": ("9.44", "1_0.44", "not a finite number"),
    "NaN": ("9.44", "nan", "not a finite number"),
    "infinity": ("9.44", "-inf", "not a finite number"),
    "unknown type": ("Car", "Bus", "unknown type"),
    "box outside": ("1005.44", "1305.44", "box outside the image"),
    "box left of it": ("837.17", "-7.17", "box outside the image"),
    "box without area": ("1005.44", "837.17", "box without area"),
    "negative size": ("3.48", "-3.48", "size not positive"),
    "truncated": ("Car 0.00", "Car 1.70", "value out of range"),
    "occluded": ("Car 0.00 0", "Car 0.00 7", "value out of range"),
    "an angle in degrees": ("1.94", "111.2", "value out of range"),
    "behind the camera": ("9.44", "-9.44", "behind the camera"),
    "a size without sense": ("3.48", "1e30", "value out of range"),
    "a position without sense": ("9.44", "1e39", "value out of range"),
}
PLANTED = WRITTEN | {
    name: (LABEL, CAR.replace(old, new, 1) + "\n", kind, 1) for name, (old, new, kind) in CHANGED.items()
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_found(tree, name, capsys):
    path, content, kind, line = PLANTED[name]
    if content is None:
        (tree / path).unlink()
    else:
        (tree / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    for folder in ("obj_depth", "obj_depth_all"):  # a label newer than its depth map is another fault
        later = time.time() + 10
        for depth_map in (tree / "training" / folder).iterdir():
            os.utime(depth_map, (later, later))
    status, faults = check(tree)
    assert status == 1
    assert (kind, path, line) in faults
    # a changed label does not fit its depth maps, and it is that of the only car; nothing else may be found
    assert {found for found, *_ in faults} <= {kind, "depth map unlike its label", "nothing to train on"}
    said = capsys.readouterr().out
    assert f"{kind}: " in said and path in said


def test_an_image_with_a_gap_is_found(tree):
    path = tree / IMAGE
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 + 5000 :])
    assert check(tree) == (1, [("unreadable image", IMAGE, 0)])


def test_depth_maps_of_another_size_age_or_content(tree):
    folder = tree / "training/obj_depth"
    np.save(folder / "000000.npy", np.zeros((370, 1224), np.float32))
    np.save(folder / "000003.npy", np.zeros((375, 1242), np.float32))
    hour_ago = time.time() - 3600
    os.utime(folder / "000002.npy", (hour_ago, hour_ago))
    status, faults = check(tree)
    assert status == 1
    assert sorted(faults) == [
        ("depth map of another size", "training/obj_depth/000000.npy", 0),
        ("depth map older than its label", "training/obj_depth/000002.npy", 0),
        ("depth map unlike its label", "training/obj_depth/000003.npy", 0),
    ]
    assert make_obj_depth.main(["--dataroot", str(tree)]) == 0  # redoes what is unfit or old
    assert [kind for kind, *_ in check(tree)[1]] == ["depth map unlike its label"]
    assert make_obj_depth.main(["--dataroot", str(tree), "--force"]) == 0
    assert check(tree) == (0, [])


def test_one_split_alone_and_few_shown(tree, capsys):
    (tree / LABEL).write_text("Car\n" * 20)
    assert check(tree, "--split", "val") == (0, [])
    assert check(tree, "--split", "train", "--show", "3")[0] == 1
    said = capsys.readouterr().out
    assert "malformed line: 20" in said and ".. and 17 more; --show 0 lists them all" in said


def test_what_cannot_be_checked_is_an_error(tree, tmp_path, capsys):
    assert check_dataset.main(["--dataroot", str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    shutil.rmtree(tree / "testing")
    assert check(tree) == (0, [])
    assert "the test split is left out" in capsys.readouterr().out
    assert check_dataset.main(["--dataroot", str(tree), "--split", "test"]) == 2
    assert "no images" in capsys.readouterr().err
    (tree / "object").mkdir()  # MonoDLE's layout
    (tree / "training").rename(tree / "object/training")
    assert check(tree) == (0, [])
    assert "the test split is left out" in capsys.readouterr().out


@pytest.mark.kitti
def test_all_real_labels_and_calibrations_are_sound(real_labels):
    with (SHARED_KITTI / "image_sizes.csv").open() as file:
        sizes = {row["id"]: (int(row["width"]), int(row["height"])) for row in csv.DictReader(file)}
    labels = sorted((real_labels / "label_2").iterdir())
    assert len(labels) == 7481
    faults = [fault for path in labels for fault in check_label(path, sizes[path.stem])[0]]
    faults += [fault for path in sorted((real_labels / "calib").iterdir()) for fault in check_calibration(path)[0]]
    assert faults == []
