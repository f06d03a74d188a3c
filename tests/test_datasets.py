import hashlib
import json
import zlib
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

import make_obj_depth
from lib.analysis.ideal_outputs import outputs_at
from lib.config import CLASS_NAMES, MEAN_SIZES, Config, Dataset, General
from lib.datasets import fast_png, images
from lib.datasets.augmentation import Augmentation
from lib.datasets.images import read_image_size
from lib.datasets.kitti import KITTI
from lib.datasets.object_depth import (
    check_object_depth,
    load_object_depth,
    paint_object_depth,
    write_object_depth,
)
from lib.datasets.samples import EpochBatches, TrainingSamples, inference_loader, training_loader
from lib.datasets.targets import encode_targets
from lib.models.centernet3d import IMAGE_MEAN, IMAGE_STD
from lib.system import machine
from lib.ops.feature_map import STRIDE, resize_align_corners
from lib.postprocess import DecodeSettings, decode_detections
from lib.structures import Calibration, FrameInfo, Object3d, read_objects, read_split
from tests.conftest import DATA, PROJECT, SHARED_KITTI

OFFICIAL = json.loads((DATA / "targets.json").read_text())
TARGETS = np.load(DATA / "targets.npz")
CASES = sorted({key.split("/")[0] for key in TARGETS})
THREE = ("Pedestrian", "Car", "Cyclist")


class Draws:
    """Gives out recorded random numbers, and fails when more or other ones are asked for."""

    def __init__(self, draws):
        self.uniform, self.normal = list(draws["uniform"]), list(draws["normal"])

    def random(self):
        return self.uniform.pop(0)

    def standard_normal(self):
        return self.normal.pop(0)


def official_frame(number="0"):
    objects = [Object3d.from_line(line) for line in OFFICIAL["labels"][number]]
    P2 = next(line for line in OFFICIAL["calib"].splitlines() if line.startswith("P2")).split()[1:]
    return objects, Calibration(np.array(P2, dtype=float)), tuple(OFFICIAL["sizes"][number])


def official_image(size):
    y, x = np.mgrid[: size[1], : size[0]]
    channels = [(3 * x + y) % 256, (x + 5 * y) % 256, 200 * ((x // 16 + y // 16) % 2) + 20]
    return np.stack(channels, -1).astype(np.uint8)


def draw_case(case, size):
    name = next(n for n in ("flip_crop", "identity", "flip", "crop") if case.endswith(n))
    draws = Draws(OFFICIAL["draws"][name])
    augmentation = Augmentation.sample(draws, size, 0.5, 0.5, 0.4, 0.1)
    assert not draws.uniform and not draws.normal
    return augmentation


@pytest.mark.parametrize("case", CASES)
def test_targets_are_the_official_ones(case):
    objects, calibration, size = official_frame()
    config = Dataset(
        writelist=("Car",) if case.startswith("car") else THREE,
        meanshape="meanshape" in case,
        bbox2d_type="proj" if "proj" in case else "anno",
    )
    targets = encode_targets(objects, calibration, draw_case(case, size), config)
    compared = 0
    for name, value in targets.items():
        if name == "heatmap":
            expected = np.zeros_like(value)
            expected[tuple(TARGETS[f"{case}/heatmap_nonzero_index"].T)] = TARGETS[f"{case}/heatmap_nonzero_value"]
            assert np.abs(value - expected).max() <= 1e-6
        else:
            expected = TARGETS[f"{case}/{name}"]
            assert value.shape == expected.shape
            assert np.abs(value.astype(np.float64) - expected).max() <= 1e-4, name
        compared += 1
    assert compared == 12
    assert targets["mask_2d"].sum() > 0


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/obj_depth_every_8th" in TARGETS])
def test_depth_maps_at_network_resolution_are_the_official_ones(case):
    _, _, size = official_frame()
    maps = np.load(DATA / "object_depth.npz")
    depth_map = maps["obj_depth_000000" if case.startswith("car") else "obj_depth_all_000000"]
    warped = draw_case(case, size).depth_map(depth_map, (1280, 384))
    assert np.array_equal(warped[::8, ::8], TARGETS[f"{case}/obj_depth_every_8th"])
    assert (warped.max() > 0) == (not case.endswith("crop"))


@pytest.mark.parametrize("case", [c for c in CASES if f"{c}/image_every_11th" in TARGETS])
def test_images_are_the_official_ones(case):
    _, _, size = official_frame()
    image = draw_case(case, size).image(official_image(size), (1280, 384))[::11, ::11].transpose(2, 0, 1)
    mean, std = np.array(IMAGE_MEAN)[:, None, None], np.array(IMAGE_STD)[:, None, None]
    error = np.abs(image - (TARGETS[f"{case}/image_every_11th"] * std + mean) * 255)
    assert error.mean() <= 0.6
    assert (error <= 2).mean() >= 0.99


def test_object_depth_is_the_official_one():
    maps = np.load(DATA / "object_depth.npz")
    for number in ("0", "1"):
        objects, _, size = official_frame(number)
        assert np.array_equal(paint_object_depth(objects, size, ("Car",)), maps[f"obj_depth_00000{number}"])
        assert np.array_equal(paint_object_depth(objects, size), maps[f"obj_depth_all_00000{number}"])
    assert maps["obj_depth_000000"].max() > 0


def test_nearer_objects_are_painted_over_farther_ones():
    near = Object3d("Car", 0, 0, 0, (10, 10, 60, 60), (1, 1, 1), (0, 1, 5.0), 0)
    far = replace(near, bbox_img=(0.5, 1.5, 40, 50), location_cam=(0, 1, 9.0))
    tiny = replace(near, bbox_img=(70, 0, 71, 5))
    for order in ([near, far, tiny], [tiny, far, near]):
        depth_map = paint_object_depth(order, (80, 70))
        assert depth_map[30, 30] == 5 and depth_map[2, 0] == 9
        assert depth_map[1, 0] == 0  # round half to even: 1.5 -> 2
        assert depth_map[2, 70] == 0  # 'UnKnown': too small


def test_flip_twice_is_the_identity():
    objects, _, size = official_frame()
    flip = replace(Augmentation.identity(size), flip=True)
    for obj in objects:
        back = flip.object3d(flip.object3d(obj))
        assert back.bbox_img == pytest.approx(obj.bbox_img)
        if obj.type != "DontCare":
            assert back.alpha == pytest.approx(obj.alpha)
            assert back.rotation_y == pytest.approx(obj.rotation_y)
    points = np.array([[3.0, 4.0], [500, 100]])
    assert np.allclose(flip.points(flip.points(points)), points)
    image = official_image(size)
    twice = flip.image(np.ascontiguousarray(image[:, ::-1]), (1280, 384)).astype(int)
    assert np.abs(twice - Augmentation.identity(size).image(image, (1280, 384))).mean() < 0.5


def round_trip(objects, calibration, size, config, exact=False):
    """(slot, label, decoded) of every object that is encoded."""
    targets = encode_targets(objects, calibration, Augmentation.identity(size), config)
    means = MEAN_SIZES if config.meanshape else None
    settings = DecodeSettings(CLASS_NAMES, config.resolution, 0.5, means, official_vertical=not exact)
    slots = np.flatnonzero(targets["mask_2d"]).tolist()
    outputs = outputs_at(targets, slots, [CLASS_NAMES.index(objects[slot].type) for slot in slots])
    decoded = decode_detections(outputs, [FrameInfo("x", size, calibration)], settings)[0]
    assert len(decoded) == len(slots)
    return [(objects[slot], found) for slot, found in zip(slots, decoded, strict=True)]


@pytest.mark.parametrize("meanshape", [False, True])
@pytest.mark.parametrize("resolution", [(1280, 384), (416, 128)])
def test_encode_then_decode_gives_the_labels_back(meanshape, resolution):
    objects, calibration, size = official_frame()
    config = Dataset(writelist=THREE, meanshape=meanshape, resolution=resolution)
    pairs = round_trip(objects, calibration, size, config, exact=True)
    assert len(pairs) >= 5
    for label, found in pairs:
        assert found.location_cam == pytest.approx(label.location_cam, abs=2e-3)
        assert found.bbox_img == pytest.approx(label.bbox_img, abs=1e-2)
        assert found.dimensions == pytest.approx(label.dimensions, abs=1e-5)
        assert np.cos(found.alpha - label.alpha) == pytest.approx(1, abs=1e-9)


def angle_between(a, b):
    return abs((a - b + np.pi) % (2 * np.pi) - np.pi)


@pytest.mark.kitti
def test_all_real_objects_survive_encoding_and_decoding(real_labels):
    """rotation_y is decoded from alpha and the projected centre, so it is compared with what the label's alpha says.

    The labels' own rotation_y differs from that by up to 0.064 rad: KITTI's alpha is taken about a point 0.27 m
    behind the camera (the laser scanner), and the official decoder leaves that out.
    """
    sizes = dict(line.split(",", 1) for line in (SHARED_KITTI / "image_sizes.csv").read_text().split()[1:])
    config = Dataset(writelist=THREE)
    worst = {"location": 0.0, "alpha": 0.0, "rotation": 0.0, "label's rotation": 0.0}
    number = 0
    for frame_id, text in sizes.items():
        objects = read_objects(real_labels / "label_2" / f"{frame_id}.txt")
        calibration = Calibration.from_file(real_labels / "calib" / f"{frame_id}.txt")
        size = tuple(int(v) for v in text.split(","))
        for label, found in round_trip(objects, calibration, size, config):
            x, y, z = label.location_cam
            u = calibration.project(np.array([[x, y - label.dimensions[0] / 2, z]]))[0, 0]
            errors = {
                "location": np.abs(np.subtract(found.location_cam, label.location_cam)).max(),
                "alpha": angle_between(found.alpha, label.alpha),
                "rotation": angle_between(found.rotation_y, calibration.alpha_to_rotation_y(label.alpha, u)),
                "label's rotation": angle_between(found.rotation_y, label.rotation_y),
            }
            worst = {name: max(value, errors[name]) for name, value in worst.items()}
            number += 1
    print(f"{number} objects; worst errors [m, rad]: {worst}")
    assert number > 20000
    assert worst["location"] <= 0.05
    assert worst["alpha"] <= 0.01
    assert worst["rotation"] <= 0.01
    assert worst["label's rotation"] <= 0.07


def test_more_than_fifty_lines_and_class_merging():
    objects, calibration, size = official_frame()
    car, van = objects[2], objects[5]
    config = Dataset(writelist=("Car",))
    assert encode_targets([van] * 50 + [car], calibration, Augmentation.identity(size), config)["mask_2d"].sum() == 0
    plain = encode_targets([van], calibration, Augmentation.identity(size), config)
    merged = encode_targets([van], calibration, Augmentation.identity(size), replace(config, class_merging=True))
    assert plain["heatmap"].max() == 0
    assert merged["heatmap"][1].max() == 1 and merged["mask_2d"].sum() == 0


def test_heatmap_at_the_2d_centre():
    objects, calibration, size = official_frame()
    config = Dataset(use_3d_center=False)
    targets = encode_targets(objects, calibration, Augmentation.identity(size), config)
    x1, y1, x2, y2 = objects[2].bbox_img
    to_input = Augmentation.identity(size).to_input(config.resolution)
    x, y = (to_input.apply(np.array([(x1 + x2) / 2, (y1 + y2) / 2])) / STRIDE).astype(int)
    assert targets["indices"][2] == y * 320 + x
    assert np.all((targets["offset_2d"][2] >= 0) & (targets["offset_2d"][2] < 1))


# --- files


def test_image_sets_have_the_official_checksums():
    folder = PROJECT / "data" / "KITTI" / "ImageSets"
    digest = {name: hashlib.sha256((folder / f"{name}.txt").read_bytes()).hexdigest() for name in ("train", "val")}
    # from ../shared/kitti/split.json
    assert digest["train"] == "e85ce0142be11c7e4196fd7b79a8bc8c2cefdd6fe754ac61fef8d421e37aba5c"
    assert digest["val"] == "6e2394d97c866c3af1ffb049f828abdf3d5b707d9575d16885fd0de87b72b0c8"
    lengths = {name: len(read_split(folder / f"{name}.txt")) for name in ("train", "val", "trainval", "test")}
    assert lengths == {"train": 3712, "val": 3769, "trainval": 7481, "test": 7518}


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
        ("ImageSets/train.txt", None, FileNotFoundError, "train.txt: no such split file"),
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
    path.write_bytes(content[:40] + content[-12:])
    frames = KITTI(tiny_kitti, "train")
    with pytest.raises(ValueError, match=r"000001\.png: this image cannot be decoded"):
        frames.read(1)
    path.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"000001\.png: not a PNG file"):
        KITTI(tiny_kitti, "train")


def test_depth_maps_are_checked(tiny_kitti, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"4 of the 4 files.*make_obj_depth"):
        KITTI(tiny_kitti, "train", "obj_depth")
    path = tmp_path / "000000.npy"
    for content in (np.zeros((3, 4), np.float32), np.zeros((5, 4))):
        np.save(path, content)
        with pytest.raises(ValueError, match=r"000000\.npy: depth map is .* needs \(5, 4\) float32"):
            load_object_depth(path, (4, 5))
    path.write_bytes(b"\x93NUMPY\x01\x00broken")
    with pytest.raises(ValueError, match=r"000000\.npy: not a \.npy depth map"):
        load_object_depth(path, (4, 5))


@pytest.mark.parametrize("distinct", [1, 40, 256, 300])
def test_compressed_depth_maps_are_the_same(tmp_path, distinct):
    rng = np.random.default_rng(0)
    depth_map = rng.uniform(2, 80, distinct).astype(np.float32)[rng.integers(0, distinct, (30, 50))]
    path = tmp_path / "x" / "000000.npz"
    write_object_depth(path, depth_map)
    loaded = load_object_depth(path, (50, 30))
    assert loaded.dtype == np.float32 and np.array_equal(loaded, depth_map)
    with np.load(path) as content:  # as the documentation has it
        assert np.array_equal(content["depths"][content["index"]], depth_map)
    with pytest.raises(ValueError, match=r"000000\.npz: depth map is .* needs \(50, 30\) float32"):
        check_object_depth(path, (30, 50))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"depths": np.zeros(2, np.float32), "index": np.full((4, 5), 2, np.uint8)}, "index 2 into 2 depths"),
        ({"depths": np.zeros(2, np.float32), "index": np.full((4, 5), 2, np.uint16)}, "out of bounds"),
        ({"depths": np.zeros(0, np.float32), "index": np.zeros((4, 5), np.uint8)}, "out of bounds"),
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
        load_object_depth(path, (5, 4))


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
            load_object_depth(path, (50, 40))
        except ValueError as error:
            assert "000007" in str(error) and "make_obj_depth.py --force" in str(error)
            refused += 1
    assert refused > 30


def test_image_size_from_the_header(tiny_kitti, tmp_path):
    assert read_image_size(tiny_kitti / "training/image_2/000000.png") == (1242, 375)
    (tmp_path / "x.png").write_bytes(b"JFIF")
    with pytest.raises(ValueError, match=r"x\.png: not a PNG"):
        read_image_size(tmp_path / "x.png")


# --- samples and loaders


def config_for(workers=0, **dataset):
    return Config(general=General(), dataset=Dataset(batch_size=2, num_workers=workers, **dataset))


def png(width=37, height=23, kind=cv2.IMREAD_COLOR, **parameters):
    """White noise around a gradient, as OpenCV encodes it."""
    noise = np.random.default_rng(width).integers(0, 40, (height, width, 3)) + np.arange(width)[None, :, None] * 5
    image = noise.astype(np.uint8)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if kind == cv2.IMREAD_GRAYSCALE else image
    flags = [number for name, value in parameters.items() for number in (getattr(cv2, f"IMWRITE_PNG_{name}"), value)]
    return cv2.imencode(".png", image, flags)[1].tobytes()


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@pytest.mark.parametrize(
    "row_filter", ["FILTER_NONE", "FILTER_SUB", "FILTER_UP", "FILTER_AVG", "FILTER_PAETH", "ALL_FILTERS"]
)
def test_pixels_inflated_beforehand_are_the_same(tmp_path, monkeypatch, row_filter):
    pytest.importorskip("isal")
    for width, height in ((37, 23), (1, 1), (300, 200)):  # the last one's rows need more than one stored block
        content = png(width, height, FILTER=getattr(cv2, f"IMWRITE_PNG_{row_filter}"))
        content = content[:33] + chunk(b"tEXt", b"Comment\0x") + content[33:]
        stored = fast_png.with_stored_pixels(content)
        assert stored is not None and len(stored) > 3 * width * height
        (tmp_path / "a.png").write_bytes(content)
        fast = images.read_image(tmp_path / "a.png")
        with monkeypatch.context() as patch:
            patch.setattr(images, "isal_zlib", None)
            assert np.array_equal(images.read_image(tmp_path / "a.png"), fast)


def test_what_is_not_inflated_beforehand():
    pytest.importorskip("isal")
    sound = png()
    assert fast_png.with_stored_pixels(sound) is not None
    end = sound.index(b"IEND") - 4
    start = sound.index(b"IDAT") - 4
    raw = zlib.decompress(sound[start + 8 : start + 8 + int.from_bytes(sound[start : start + 4], "big")])
    assert fast_png.with_stored_pixels(sound[:start] + chunk(b"IDAT", zlib.compress(raw)) + sound[end:]) is not None
    others = {
        "grey": png(kind=cv2.IMREAD_GRAYSCALE),
        "no PNG": b"\xff\xd8" + sound,
        "cut off": sound[: start + 100],
        "no end": sound[:end],
        "a wrong checksum": sound[: start + 20] + bytes([sound[start + 20] ^ 1]) + sound[start + 21 :],
        "no deflate stream": sound[:start] + chunk(b"IDAT", b"x" * 100) + sound[end:],
        "a row less": sound[:start] + chunk(b"IDAT", zlib.compress(raw[: -(37 * 3 + 1)])) + sound[end:],
        "a row more": sound[:start] + chunk(b"IDAT", zlib.compress(raw + raw[: 37 * 3 + 1])) + sound[end:],
        "a deflate stream cut off": sound[:start] + chunk(b"IDAT", zlib.compress(raw)[:-6]) + sound[end:],
        "a length beyond the end": sound[:start] + b"\xff\xff\xff\xff" + sound[start + 4 :],
        "nothing": b"",
    }
    for name, content in others.items():
        assert fast_png.with_stored_pixels(content) is None, name


def test_samples_depend_on_seed_epoch_and_frame_alone(tiny_kitti):
    samples = TrainingSamples(KITTI(tiny_kitti, "train"), config_for())
    first = samples[(3, 0)]
    samples[(0, 1)]
    again = samples[(3, 0)]
    assert torch.equal(first.image, again.image)
    assert first.image.dtype == torch.uint8 and first.image.shape == (3, 384, 1280)
    images = {samples[(epoch, 0)].image.float().mean().item() for epoch in range(6)}
    assert len(images) > 2


def test_workers_change_nothing(tiny_kitti):
    frames = KITTI(tiny_kitti, "train")
    for epoch in (0, 1):
        batches = []
        for workers in (0, 2):
            loader = training_loader(frames, config_for(workers))
            loader.batch_sampler.set_epoch(epoch)
            batches.append(list(loader))
        for alone, shared in zip(*batches, strict=True):
            assert torch.equal(alone.images, shared.images)
            assert [i.frame_id for i in alone.frames] == [i.frame_id for i in shared.frames]
            assert all(torch.equal(alone.targets[k], shared.targets[k]) for k in alone.targets)


def same_batches(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert [f.frame_id for f in a.frames] == [f.frame_id for f in b.frames]
        assert torch.equal(a.images, b.images) and a.targets.keys() == b.targets.keys()
        assert all(torch.equal(a.targets[k], b.targets[k]) for k in a.targets)


def epochs(frames, **dataset):
    loader = training_loader(frames, config_for(**dataset))
    batches = []
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_images_are_the_same(tiny_kitti, workers):
    plain = epochs(KITTI(tiny_kitti, "train"))
    frames = KITTI(tiny_kitti, "train", cache=True)
    same_batches(epochs(frames, workers=workers), plain)
    for path in (tiny_kitti / "training/image_2").iterdir():
        path.unlink()
    same_batches(epochs(frames, workers=workers), plain)  # what workers that have ended decoded is still there


def test_a_cache_needs_forked_loaders(tiny_kitti, monkeypatch):
    frames = KITTI(tiny_kitti, "train", cache=True)
    assert training_loader(frames, config_for(2)).multiprocessing_context.get_start_method() == "fork"
    assert training_loader(KITTI(tiny_kitti, "train"), config_for(2)).multiprocessing_context is None
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert training_loader(frames, config_for(0)).num_workers == 0
    with pytest.raises(ValueError, match="set num_workers: 0"):
        training_loader(frames, config_for(2))


def test_a_cache_that_does_not_fit_is_refused(tiny_kitti, monkeypatch):
    monkeypatch.setattr("lib.datasets.image_cache.available_memory", lambda: 5_000_000)
    with pytest.raises(ValueError, match=r"needs 0\.01 GB for 4 images and 0\.01 GB are free; set dataset\.cache"):
        KITTI(tiny_kitti, "train", cache=True)
    monkeypatch.undo()
    free = machine.available_memory()
    assert free is None or free > 10_000_000


def test_every_source_of_object_depth_is_the_same(tiny_kitti):
    arguments = ["--dataroot", str(tiny_kitti)]
    assert make_obj_depth.main(arguments) == 0
    for folder in ("obj_depth", "obj_depth_all"):
        from_npy = epochs(KITTI(tiny_kitti, "train", folder))
        assert sum((b.targets["obj_depth"] > 0).sum() for b in from_npy) > 100
        same_batches(epochs(KITTI(tiny_kitti, "train", folder, paint_obj_depth=True)), from_npy)
        assert make_obj_depth.main([*arguments, "--format", "npz"]) == 0
        assert not list(tiny_kitti.rglob("*.npy"))
        same_batches(epochs(KITTI(tiny_kitti, "train", folder)), from_npy)
        assert make_obj_depth.main(arguments) == 0


def test_depth_at_cells_is_the_resized_map():
    """The official code warps the whole map and resizes it in the loss; only what a cell looks at is read here."""
    rng = np.random.default_rng(0)
    for size, resolution in (((1242, 375), (1280, 384)), ((1224, 370), (640, 192)), ((100, 300), (64, 96))):
        depth_map = np.zeros((size[1], size[0]), np.float32)
        for depth in rng.uniform(3, 60, 12):
            x, y = rng.integers(0, size)
            depth_map[y : y + size[1] // 4, x : x + size[0] // 5] = depth
        for flip in (False, True):
            augmentation = replace(Augmentation.identity(size), flip=flip)
            whole = torch.from_numpy(augmentation.depth_map(depth_map, resolution))[None, None]
            expected = resize_align_corners(whole, resolution[1] // STRIDE, resolution[0] // STRIDE)[0, 0].numpy()
            found = augmentation.depth_map_at_cells(depth_map, resolution, STRIDE)
            assert found.dtype == np.float32 and (expected > 0).any()
            assert np.array_equal(found != 0, expected != 0)
            np.testing.assert_allclose(found, expected, rtol=3e-7)


def test_epochs_have_their_own_order_and_every_frame_once():
    batches = EpochBatches(50, 8, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        assert [len(batch) for batch in batches] == [8] * 6 + [2] and len(batches) == 7
        keys = [key for batch in batches for key in batch]
        assert {e for e, _ in keys} == {epoch}
        orders.append([i for _, i in keys])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


def test_an_epoch_goes_on_where_it_was_interrupted():
    batches = EpochBatches(50, 8, seed=1)
    whole = list(batches)
    batches.set_epoch(0, done=24)
    assert list(batches) == whole[3:] and len(batches) == 4


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_shares_put_together_are_the_batch(ranks):
    whole = list(EpochBatches(50, 8, seed=1))
    shares = [list(EpochBatches(50, 8, 1, rank, ranks)) for rank in range(ranks)]
    for k, batch in enumerate(whole):
        assert [key for share in shares for key in share[k]] == batch
        sizes = [len(share[k]) for share in shares]
        assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_every_frame_is_evaluated_once(tiny_kitti):
    frames = KITTI(tiny_kitti, "train")
    for ranks in (1, 2, 3):
        batches = [list(inference_loader(frames, config_for(), rank, ranks)) for rank in range(ranks)]
        seen = [f.frame_id for rank in batches for batch in rank for f in batch.frames]
        assert sorted(seen) == sorted(frames.frame_ids)


def test_bad_frames_can_be_skipped(tiny_kitti):
    """Broken in three ways: two known from the start, one only when the image is decoded."""
    path = tiny_kitti / "training/image_2/000001.png"
    content = path.read_bytes()
    path.write_bytes(content[:40] + content[-12:])
    (tiny_kitti / "training/label_2/000003.txt").write_text("Car 1 2 3\n")
    (tiny_kitti / "training/calib/000002.txt").unlink()
    frames = KITTI(tiny_kitti, "train", allow_bad_frames=True)
    assert frames.median_focal_net(1280) == pytest.approx(721.5377 * 1280 / 1242)
    loader = training_loader(frames, config_for(on_bad_frame="skip"))
    batches = list(loader)
    assert [f.frame_id for b in batches for f in b.frames] == ["000000"]
    skipped = {s.frame_id: s.reason for b in batches for s in b.skipped}
    assert set(skipped) == {"000001", "000002", "000003"}
    assert "cannot be decoded" in skipped["000001"] and "calib/000002.txt" in skipped["000002"]
    assert "000003.txt, line 1" in skipped["000003"]
    (empty,) = [b for b in batches if not b.frames]
    full = next(b for b in batches if b.frames)
    assert {k: (v.shape[1:], v.dtype) for k, v in empty.targets.items()} == {
        k: (v.shape[1:], v.dtype) for k, v in full.targets.items()
    }
    assert empty.images.shape == (0, 3, 384, 1280)
    with pytest.raises(ValueError, match=r"000001\.png: this image cannot be decoded"):
        TrainingSamples(frames, config_for())[(0, 1)]


def test_the_focal_length_of_a_split_is_its_frames_median(tiny_kitti):
    """At network resolution: a smaller image of a larger focal length counts twice as much."""
    for frame_id, focal, width in (("000000", 700.0, 1242), ("000001", 800.0, 1242), ("000003", 700.0, 621)):
        calib = f"P2: {focal} 0 600 0 0 {focal} 170 0 0 0 1 0\n"
        (tiny_kitti / "training/calib" / f"{frame_id}.txt").write_text(calib)
        cv2.imwrite(str(tiny_kitti / "training/image_2" / f"{frame_id}.png"), np.zeros((375, width, 3), np.uint8))
    frames = KITTI(tiny_kitti, "train")
    focals = [700 / 1242, 721.5377 / 1242, 800 / 1242, 1400 / 1242]
    assert frames.median_focal_net(1280) == pytest.approx(1280 * (focals[1] + focals[2]) / 2)


def test_inference_batches(tiny_kitti):
    images, targets, infos, skipped = next(iter(inference_loader(KITTI(tiny_kitti, "test"), config_for())))
    assert images.shape == (2, 3, 384, 1280) and images.dtype == torch.uint8
    assert targets == {} and skipped == []
    assert [(i.frame_id, i.image_size) for i in infos] == [("000000", (1242, 375)), ("000001", (1242, 375))]
