"""Files of a data set: splits, images, calibrations, labels and depth maps are read, and broken ones are named."""

import csv
import hashlib
import subprocess
import sys
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.config import Config, Dataset, General
from lib.datasets import build_dataset, images
from lib.datasets.images import IMAGE_SUFFIXES, read_image, read_image_header
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import paint_object_depth, read_object_depth, write_object_depth
from lib.structures import Object3d, read_split
from tests.conftest import PROJECT


def test_image_sets_have_the_official_checksums():
    folder = PROJECT / "data" / "KITTI" / "ImageSets"
    digest = {name: hashlib.sha256((folder / f"{name}.txt").read_bytes()).hexdigest() for name in ("train", "val")}
    # from ../shared/kitti/split.json
    assert digest["train"] == "e85ce0142be11c7e4196fd7b79a8bc8c2cefdd6fe754ac61fef8d421e37aba5c"
    assert digest["val"] == "6e2394d97c866c3af1ffb049f828abdf3d5b707d9575d16885fd0de87b72b0c8"
    lengths = {name: len(read_split(folder / f"{name}.txt")) for name in ("train", "val", "trainval", "test")}
    assert lengths == {"train": 3712, "val": 3769, "trainval": 7481, "test": 7518}
    # the 268 frames of docs/fidelity.md, no drive in both lists
    drives = {row["id"]: row["drive"] for row in kitti_frames()}
    small = {name: read_split(folder / f"small_{name}.txt") for name in ("train", "val")}
    assert {name: len(ids) for name, ids in small.items()} == {"train": 166, "val": 102}
    assert all(set(ids) <= set(read_split(folder / f"{name}.txt")) for name, ids in small.items())
    found = {name: {drives[frame] for frame in ids} for name, ids in small.items()}
    assert (len(found["train"]), len(found["val"])) == (29, 20) and not found["train"] & found["val"]


def kitti_frames():
    with (PROJECT / "data" / "KITTI" / "drives.csv").open(newline="") as file:
        return list(csv.DictReader(file))


IMAGE_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
KITTI_SIZES = {(1242, 375), (1224, 370), (1238, 374), (1241, 376)}


def kitti_content(path, checksums):
    """Why a file may not be in the repository, by KITTI's licence; None if it may."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest()[:16] in checksums:
        return "KITTI's image"
    if content.startswith(IMAGE_STARTS) and read_image_header(path).size in KITTI_SIZES:
        return "an image of KITTI's size"
    if path.suffix in (".pth", ".safetensors", ".onnx", ".mp4", ".zip"):
        return "weights, a video or an archive"
    if path.suffix == ".xz":
        with tarfile.open(path) as tar:
            return next((f"with {name}" for name in tar.getnames() if Path(name).suffix in IMAGE_SUFFIXES), None)
    return None


def test_no_image_of_kitti_is_in_the_repository(tiny_kitti):
    if not (PROJECT / ".git").exists():
        pytest.skip("this is not a git checkout, so the files of the repository are not known")
    command = ["git", "ls-files", "-z"]
    files = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    checksums = {row["image_2_sha256_16"] for row in kitti_frames()}
    assert len(checksums) == 7481
    paths = [PROJECT / name for name in files.split("\0") if (PROJECT / name).is_file()]
    assert len(paths) > 300
    assert {path: why for path in paths if (why := kitti_content(path, checksums))} == {}
    planted = tiny_kitti / "training/image_2/000000.png"
    assert kitti_content(planted, checksums) == "an image of KITTI's size"
    assert kitti_content(planted, {hashlib.sha256(planted.read_bytes()).hexdigest()[:16]}) == "KITTI's image"


def test_frames_are_read(tiny_kitti):
    frames = KITTI(tiny_kitti, "train")
    assert len(frames) == 4
    frame = frames.read(0)
    bgr = cv2.imread(str(tiny_kitti / "training/image_2/000000.png"))
    assert np.array_equal(frame.image, bgr[..., ::-1])
    assert [o.type for o in frame.objects] == ["Car", "Car", "Pedestrian", "DontCare"]
    assert frames.read(2).objects == ()
    test = KITTI(tiny_kitti, "test")
    assert len(test) == 2 and test.read(1).objects == () and not test.has_labels


def test_older_layouts_are_found(tiny_kitti):
    (tiny_kitti / "training/label_2").rename(tiny_kitti / "training/label")
    (tiny_kitti / "object").mkdir()
    (tiny_kitti / "training").rename(tiny_kitti / "object/training")
    assert len(KITTI(tiny_kitti, "train").read(0).objects) == 4


@pytest.mark.parametrize(
    ("path", "text", "error", "said"),
    [
        ("ImageSets/train.txt", None, FileNotFoundError, "train.txt: no such split file; did you mean trainval.txt?"),
        ("ImageSets/train.txt", "\n\n", ValueError, "train.txt: the split is empty"),
        ("ImageSets/train.txt", "000000\n0000 01\n", ValueError, "train.txt, line 2: expected one frame id"),
        ("ImageSets/train.txt", "000000\n000000\n", ValueError, "line 2: frame 000000 is already on line 1"),
        ("ImageSets/train.txt", "000000\n000009\n", FileNotFoundError, "1 of the 2 files of split 'train' are missing"),
        ("training/label_2/000003.txt", None, FileNotFoundError, "label_2: 1 of the 4"),
        ("training/label_2/000003.txt", "Car 1 2 3\n", ValueError, "000003.txt, line 1: expected 15 columns"),
        ("training/calib/000003.txt", "P0: 1\n", ValueError, "000003.txt: no line 'P2"),
    ],
)
def test_broken_trees_are_named_at_the_start(tiny_kitti, path, text, error, said):
    if text is None:
        (tiny_kitti / path).unlink()
    else:
        (tiny_kitti / path).write_text(text)
    with pytest.raises(error) as caught:
        KITTI(tiny_kitti, "train")
    assert said in str(caught.value)


def test_unreadable_image_is_named(tiny_kitti):
    path = tiny_kitti / "training/image_2/000001.png"
    content = path.read_bytes()
    path.write_bytes(content[:2000])
    with pytest.raises(ValueError, match=r"000001\.png: this PNG is cut off"):
        KITTI(tiny_kitti, "train")
    path.write_bytes(content[:100] + content[-12:])
    frames = KITTI(tiny_kitti, "train")
    with pytest.raises(ValueError, match=r"000001\.png: this image cannot be decoded"):
        frames.read(1)
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"000001\.png: not a PNG file"):
        KITTI(tiny_kitti, "train")


def test_nearer_objects_are_painted_over_farther_ones():
    near = Object3d("Car", 0, 0, 0, (10, 10, 60, 60), (1, 1, 1), (0, 1, 5.0), 0)
    far = replace(near, bbox_img=(0.5, 1.5, 40, 50), location_cam=(0, 1, 9.0))
    tiny = replace(near, bbox_img=(70, 0, 71, 5))
    for order in ([near, far, tiny], [tiny, far, near]):
        depth_map = paint_object_depth(order, (80, 70))
        assert depth_map[30, 30] == 5 and depth_map[2, 0] == 9
        assert depth_map[1, 0] == 0  # round half to even: 1.5 -> 2
        assert depth_map[2, 70] == 0  # 'UnKnown': too small


def test_depth_maps_are_checked(tiny_kitti, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"4 of the 4 files.*make_obj_depth"):
        KITTI(tiny_kitti, "train", "obj_depth")
    path = tmp_path / "000000.npy"
    for content in (np.zeros((3, 4), np.float32), np.zeros((5, 4))):
        np.save(path, content)
        with pytest.raises(ValueError, match=r"000000\.npy: depth map is .* needs \(5, 4\) float32"):
            read_object_depth(path, (4, 5))
    path.write_bytes(b"\x93NUMPY\x01\x00broken")
    with pytest.raises(ValueError, match=r"000000\.npy: not a \.npy depth map"):
        read_object_depth(path, (4, 5))


@pytest.mark.parametrize("distinct", [1, 40, 256, 300])
def test_compressed_depth_maps_are_the_same(tmp_path, distinct):
    rng = np.random.default_rng(0)
    depth_map = rng.uniform(2, 80, distinct).astype(np.float32)[rng.integers(0, distinct, (30, 50))]
    path = tmp_path / "x" / "000000.npz"
    write_object_depth(path, depth_map)
    loaded = read_object_depth(path, (50, 30))
    assert loaded.dtype == np.float32 and np.array_equal(loaded, depth_map)
    with np.load(path) as content:  # as the documentation has it
        assert np.array_equal(content["depths"][content["index"]], depth_map)
    with pytest.raises(ValueError, match=r"000000\.npz: depth map is .* needs \(50, 30\) float32"):
        read_object_depth(path, (30, 50))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"depths": np.zeros(2, np.float32), "index": np.full((4, 5), 2, np.uint8)}, "out of bounds"),
        ({"depths": np.zeros(2, np.float32), "index": np.full((4, 5), 2, np.uint16)}, "out of bounds"),
        ({"depths": np.zeros(0, np.float32), "index": np.zeros((4, 5), np.uint8)}, "cannot do a non-empty take"),
        ({"depths": np.zeros(2), "index": np.zeros((4, 5), np.uint8)}, "expected \\(N,\\) float32"),
        ({"depth": np.zeros((4, 5), np.float32)}, "depths"),
        (b"PK\x03\x04 no archive", "not a .npz depth map"),
        (b"", "not a .npz depth map"),
    ],
)
def test_broken_compressed_depth_maps_are_named(tmp_path, content, said):
    path = tmp_path / "000007.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez_compressed(path, **content)
    with pytest.raises(ValueError, match=r"000007\.npz: .*" + said + r".*make_obj_depth.py --force"):
        read_object_depth(path, (5, 4))


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_depth_maps_are_named(tmp_path, suffix):
    """Ten bytes anywhere in the first 300: header, names or compressed data."""
    path = tmp_path / f"000007{suffix}"
    depth_map = np.random.default_rng(0).random((40, 50)).astype(np.float32)
    write_object_depth(path, depth_map)
    content = path.read_bytes()
    refused = 0
    for start in range(0, 300, 3):
        path.write_bytes(content[:start] + b"([{" + b"x" * 7 + content[start + 10 :])
        try:
            read_object_depth(path, (50, 40))
        except ValueError as error:
            assert "000007" in str(error) and "make_obj_depth.py --force" in str(error)
            refused += 1
    assert refused > 30


def test_image_size_from_the_header(tiny_kitti, tmp_path):
    assert read_image_header(tiny_kitti / "training/image_2/000000.png").size == (1242, 375)
    (tmp_path / "x.png").write_bytes(b"JFIF")
    with pytest.raises(ValueError, match=r"x\.png: not a PNG"):
        read_image_header(tmp_path / "x.png")


def png(width=37, height=23, kind=cv2.IMREAD_COLOR, row_filter=cv2.IMWRITE_PNG_ALL_FILTERS):
    """White noise around a gradient, as OpenCV encodes it."""
    noise = np.random.default_rng(width).integers(0, 40, (height, width, 3)) + np.arange(width)[None, :, None] * 5
    image = noise.astype(np.uint8)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if kind == cv2.IMREAD_GRAYSCALE else image
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_FILTER, row_filter])[1].tobytes()


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def pngs():
    sound = png()
    end, start = sound.index(b"IEND") - 4, sound.index(b"IDAT") - 4
    raw = zlib.decompress(sound[start + 8 : start + 8 + int.from_bytes(sound[start : start + 4], "big")])
    pixels = {
        "no deflate stream": b"x" * 100,
        "a row missing": zlib.compress(raw[: -(37 * 3 + 1)]),
        "a row too many": zlib.compress(raw + raw[: 37 * 3 + 1]),
        "a deflate stream cut off": zlib.compress(raw)[:-6],
        "another checksum of the pixels": zlib.compress(raw)[:-1] + b"x",
    }
    extra = {"gAMA": b"\0\0\xb1\x8f", "tEXt": b"Comment\0x", "sBIT": b"\5\5\5", "tRNS": b"\0\1\0\1\0\1"}
    filters = [getattr(cv2, f"IMWRITE_PNG_FILTER_{name}") for name in ("NONE", "SUB", "UP", "AVG", "PAETH")]
    return {
        **{f"{size}, filter {f}": png(*size, row_filter=f) for f in filters for size in ((1, 1), (300, 200))},
        **{name: sound[:33] + chunk(name.encode(), content) + sound[33:] for name, content in extra.items()},
        **{name: sound[:start] + chunk(b"IDAT", content) + sound[end:] for name, content in pixels.items()},
        "gray": png(kind=cv2.IMREAD_GRAYSCALE),
        "no PNG": b"\xff\xd8" + sound,
        "cut off": sound[: start + 100],
        "another checksum": sound[: start + 20] + bytes([sound[start + 20] ^ 1]) + sound[start + 21 :],
        "a length beyond the end": sound[:start] + b"\xff\xff\xff\xff" + sound[start + 4 :],
        "nothing": b"",
    }


def test_imagecodecs_and_opencv_read_the_same_images(tmp_path, monkeypatch):
    pytest.importorskip("imagecodecs")
    path, decoded, refused = tmp_path / "a.png", 0, 0
    for name, content in pngs().items():
        path.write_bytes(content)
        expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        decoded += images._decode_rgb_png(content) is not None
        if expected is None:
            with pytest.raises(ValueError, match=r"a\.png: this image cannot be decoded"):
                read_image(path, max_pixels=None)
            refused += 1
        else:
            assert np.array_equal(read_image(path, max_pixels=None), expected), name
    assert (decoded, refused) == (14, 9)
    monkeypatch.setattr(images, "imagecodecs", None)
    path.write_bytes(png())
    assert images._decode_rgb_png(png()) is None and read_image(path, max_pixels=None).shape == (23, 37, 3)


def test_a_data_set_is_built_from_the_configuration(tiny_kitti, tmp_path):
    general = General(dataroot=str(tiny_kitti), obj_depth=True)
    config = Config(general=general, dataset=Dataset(obj_depth_source="labels", cache="ram", on_bad_frame="skip"))
    plain = build_dataset(config, "train", max_frames=2)
    assert len(plain) == 2 and not plain.has_obj_depth and plain.cache is None
    (tiny_kitti / "training/calib/000002.txt").unlink()
    training = build_dataset(config, "train", training=True)
    assert training.painted_types == ("Car",) and training.obj_depth_dir is None and training.cache is not None
    with pytest.raises(FileNotFoundError):
        build_dataset(config, "train")
    object.__setattr__(config.dataset, "type", "waymo")
    with pytest.raises(ValueError, match=r"dataset\.type must be one of kitti, got 'waymo'"):
        build_dataset(config, "train")


def test_commands_about_files_do_not_load_torch():
    code = "import sys, make_obj_depth, tools.check_dataset; print(sorted({'torch', 'numba'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
