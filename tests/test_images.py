"""Image files as cameras, phones and converters write them: bytes after the end, cut files, suffixes, orientation."""

import cv2
import numpy as np
import pytest
from PIL import Image

import make_obj_depth
from lib.datasets.images import find_image, read_image, read_image_header
from lib.datasets.kitti import KITTI
from tests.conftest import CALIB
from tools import check_dataset, run_onnx

LABEL = "Car 0.00 0 -1.91 626.71 177.29 676.63 203.69 1.42 1.62 3.99 2.31 1.69 41.67 -1.86\n"
SIZE = (1242, 375)


def picture(size=SIZE):
    """Smooth, so that a JPEG is near it, and without symmetry."""
    colours = np.random.default_rng(4).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return cv2.resize(colours, size, interpolation=cv2.INTER_CUBIC)


def exif_of(orientation, thumbnail=b""):
    exif = Image.Exif()
    exif[0x112] = orientation
    return exif.tobytes() + thumbnail


def save(path, image, **options):
    """With Pillow, by the suffix in any case; returns the path."""
    Image.fromarray(image).save(path, "PNG" if path.suffix.lower() == ".png" else "JPEG", **options)
    return path


@pytest.fixture
def root(tmp_path):
    """A KITTI tree of one frame, 'a', without an image."""
    root = tmp_path / "set"
    for name in ("image_2", "calib", "label_2"):
        (root / "training" / name).mkdir(parents=True)
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("a\n")
    (root / "training/calib/a.txt").write_text(CALIB)
    (root / "training/label_2/a.txt").write_text(LABEL)
    return root


def check(root, capsys):
    """Status and text of tools/check_dataset.py."""
    return check_dataset.main(["--dataroot", str(root)]), capsys.readouterr().out


# ---- where a file ends ----


@pytest.mark.parametrize("tail", [b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 400, bytes(8192), b"\xff"])
def test_bytes_after_the_end_of_a_jpeg_are_ignored(root, capsys, caplog, tail):
    path = save(root / "training/image_2/a.jpg", picture(), exif=exif_of(1))
    expected = read_image(path)
    assert abs(expected.astype(int) - picture()).mean() < 3
    path.write_bytes(path.read_bytes() + tail)
    assert read_image_header(path).size == SIZE
    assert np.array_equal(KITTI(root, "train").read(0).image, expected) and not caplog.text
    assert check(root, capsys)[0] == 0
    assert np.array_equal(run_onnx.read_image(path)[..., ::-1], expected)


@pytest.mark.parametrize("size", [(64, 48), SIZE])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_jpeg_cut_inside_its_scan_is_named_despite_its_thumbnail(root, capsys, size, share):
    thumbnail = save(root / "small.jpg", picture((32, 20))).read_bytes()
    assert thumbnail.endswith(b"\xff\xd9")
    path = save(root / "training/image_2/a.jpg", picture(size), exif=exif_of(1, thumbnail))
    content = path.read_bytes()
    scan = content.rindex(b"\xff\xda") + 14
    assert content.index(b"\xff\xd9") < scan and read_image_header(path).size == size
    path.write_bytes(content[: scan + int(share * (len(content) - scan))])
    with pytest.raises(ValueError, match=r"a\.jpg: this JPEG is cut off"):
        KITTI(root, "train")
    assert make_obj_depth.main(["--dataroot", str(root)]) == 2
    assert "a.jpg: this JPEG is cut off" in capsys.readouterr().err
    status, said = check(root, capsys)
    assert status == 1 and "unreadable image: 1" in said and "this JPEG is cut off" in said


@pytest.mark.parametrize("missing", [1, 9, 12, 3000])
def test_a_cut_png_is_named(root, capsys, missing):
    path = save(root / "training/image_2/a.png", picture())
    content = path.read_bytes()
    path.write_bytes(content + bytes(8192))
    assert KITTI(root, "train").image_sizes == [SIZE]
    path.write_bytes(content[:-missing])
    if missing > 8:  # up to there the end mark itself is whole, and all pixels are
        with pytest.raises(ValueError, match=r"a\.png: this PNG is cut off"):
            KITTI(root, "train")
        assert check(root, capsys)[0] == 1
    else:
        assert np.array_equal(KITTI(root, "train").read(0).image, picture())


# ---- which file is meant ----


@pytest.mark.parametrize("suffix", [".PNG", ".Png", ".JPG", ".Jpg", ".JPEG", ".Jpeg", ".jpeg", ".jPG"])
def test_a_suffix_is_found_in_any_case(root, capsys, caplog, suffix):
    path = save(root / f"training/image_2/a{suffix}", picture())
    assert find_image(path.parent, "a") == path and run_onnx.find_images(path.parent) == [path]
    assert make_obj_depth.main(["--dataroot", str(root)]) == 0
    assert "2 maps written" in capsys.readouterr().out
    frame = KITTI(root, "train", "obj_depth").read(0)
    assert np.array_equal(frame.image, read_image(path)) and frame.obj_depth.max() == np.float32(41.67)
    assert check(root, capsys)[0] == 0 and not caplog.text


@pytest.mark.parametrize("other", ["a.jpg", "a.PNG"])
def test_two_images_of_a_frame_are_named(root, capsys, caplog, other):
    folder = root / "training/image_2"
    for name in ("a.png", other, "b.png", "b.jpg"):  # b is not in the split
        save(folder / name, picture())
    assert KITTI(root, "train").image_sizes == [SIZE]
    names = " and ".join(sorted(("a.png", other)))
    assert f"two images of the same frame, {names}; a.png is used (1 frame like this)" in caplog.text
    status, said = check(root, capsys)
    assert status == 1 and "two images of a frame: 1" in said and f"{names} exist; a.png is used" in said


def test_depth_maps_without_any_image_are_an_error(root, capsys):
    training = root / "training"
    for name in ("b.png", "a.bmp", "a.txt"):  # no label, no accepted format
        (training / "image_2" / name).write_bytes(b"")
    assert make_obj_depth.main(["--dataroot", str(root)]) == 2
    assert "no image (.png or .jpg or .jpeg) for any of the 1 label files" in capsys.readouterr().err
    assert sorted(path.name for path in training.iterdir()) == ["calib", "image_2", "label_2"]


# ---- what its pixels mean ----


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_an_orientation_is_named_and_ignored_in_a_data_set(root, capsys, caplog, suffix):
    path = save(root / f"training/image_2/a{suffix}", picture(), exif=exif_of(6))
    frame = KITTI(root, "train").read(0)
    assert frame.image.shape == (*SIZE[::-1], 3) and abs(frame.image.astype(int) - picture()).mean() < 3
    said = "the EXIF orientation of 1 image is ignored (labels refer to stored pixels), the first is " + path.name
    assert said in caplog.text
    status, said = check(root, capsys)
    assert status == 1 and "turned image: 1" in said and "EXIF orientation 6 is ignored" in said


@pytest.mark.parametrize("colours", [1, 3])
def test_12_bits_in_a_16_bit_png_are_named(root, capsys, caplog, colours):
    path = root / "training/image_2/a.png"
    values = np.ascontiguousarray(picture().astype(np.uint16)[..., :colours] * 257)  # 0 .. 65535
    values[0, 0] = 65535
    cv2.imwrite(str(path), values)
    KITTI(root, "train")
    assert not caplog.text and check(root, capsys)[0] == 0
    cv2.imwrite(str(path), values >> 4)  # 0 .. 4095
    KITTI(root, "train")
    assert "16-bit images with values of 12 bits at most, such as a.png, are read as nearly black" in caplog.text
    status, said = check(root, capsys)
    assert status == 1 and "dark image: 1" in said and "its 16 bits hold values of 12 bits at most" in said


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".JPG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_commands_for_photos_turn_them_alike(tmp_path, suffix, orientation):
    path = save(tmp_path / f"a{suffix}", picture((60, 40)), exif=exif_of(orientation))
    upright = read_image(path, upright=True)
    assert upright.shape[:2] == ((60, 40) if orientation > 4 else (40, 60))
    assert np.array_equal(run_onnx.read_image(path)[..., ::-1], upright)
    assert np.array_equal(upright, read_image(path)) == (orientation == 1)
