"""Two invented classes, JPEG images and another camera, by configuration alone, as in docs/other_data.md."""

import json
import math
import re

import cv2
import numpy as np
import pytest
from PIL import Image

import make_obj_depth
from lib.datasets.images import find_image, read_image, read_image_header
from lib.datasets.kitti import KITTI
from lib.engine.checkpoint import read_checkpoint
from lib.evaluation import evaluate_kitti
from lib.structures import Calibration, Object3d, read_objects
from tools import check_dataset, train_val
from tools import evaluate_kitti as evaluate_command

SIZE = (640, 360)
P2 = (500.0, 0, 330.0, 10.0, 0, 500.0, 170.0, 0.5, 0, 0, 1, 0.001)
SIZES = {"Forklift": (2.1, 1.2, 2.6), "Pallet": (0.9, 0.8, 1.2)}
YAML = """
general: {dataroot: DATA, obj_depth: true, qi: true}
dataset:
  batch_size: 2
  num_workers: 0
  class_names: [Forklift, Pallet]
  writelist: [Forklift, Pallet]
  resolution: [320, 192]
  meanshape: true
  mean_sizes: {Forklift: [2.1, 1.2, 2.6], Pallet: [0.9, 0.8, 1.2]}
model: {backbone: dla34_narrow, pretrained: false}
trainer: {max_epoch: 1, gpu_ids: []}
tester: {threshold: 0.0, overlaps: {Forklift: [0.6, 0.3]}, map_to_image: exact}
"""


def label(name, x, z, rotation_y, calibration):
    """A label line whose 2D box is that of the projected corners."""
    height, width, length = SIZES[name]
    solid = Object3d(name, 0.0, 0, 0.0, (0, 0, 0, 0), (height, width, length), (x, 1.5, z), rotation_y)
    corners = calibration.project(solid.corners_cam())
    low, high = np.clip(corners.min(0), 0, SIZE), np.clip(corners.max(0), 0, SIZE)
    alpha = rotation_y - math.atan2(x, z)
    box = " ".join(f"{v:.2f}" for v in (*low, *high))
    return f"{name} 0 0 {alpha:.2f} {box} {height} {width} {length} {x} 1.5 {z} {rotation_y:.2f}\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root, calibration = tmp_path / "DATA", Calibration(np.array(P2))
    rng = np.random.default_rng(0)
    for name in ("image_2", "calib", "label_2"):
        (root / "training" / name).mkdir(parents=True)
    for k in range(4):
        frame_id = f"hall-{k}"
        image = cv2.resize(rng.integers(0, 255, (9, 16, 3), dtype=np.uint8), SIZE)
        cv2.imwrite(str(root / "training/image_2" / f"{frame_id}.jpg"), image)
        (root / "training/calib" / f"{frame_id}.txt").write_text(f"P2: {' '.join(map(str, P2))}\n")
        poses = (("Forklift", -2.0 + k, 9.0 + k, 0.4), ("Pallet", 1.0, 6.0 + k, -1.2))
        lines = [label(*pose, calibration) for pose in poses]
        (root / "training/label_2" / f"{frame_id}.txt").write_text("".join(lines))
    (root / "ImageSets").mkdir()
    (root / "ImageSets/train.txt").write_text("hall-0\nhall-1\nhall-2\n")
    (root / "ImageSets/val.txt").write_text("hall-3\n")
    (tmp_path / "mine.yaml").write_text(YAML.replace("DATA", str(root)))
    return root


def test_own_classes_are_trained_and_evaluated(root, tmp_path, capsys):
    assert check_dataset.main(["--dataroot", str(root), "--types", "Forklift", "Pallet"]) == 0, capsys.readouterr().out
    assert make_obj_depth.main(["--dataroot", str(root)]) == 0
    assert train_val.main(["--config", "mine.yaml"]) == 0, capsys.readouterr().err
    folder = tmp_path / "outputs/mine"
    state = read_checkpoint(folder / "checkpoints/checkpoint_epoch_1.pth")
    assert state["model_state"]["heatmap.2.weight"].shape[0] == 2
    ap = json.loads((folder / "results/checkpoint_epoch_1/val/ap.json").read_text())
    assert ap["classes"] == ["Forklift", "Pallet"]
    (path,) = (folder / "results/checkpoint_epoch_1/val/data").iterdir()
    found = read_objects(path)
    assert {o.type for o in found} == {"Forklift", "Pallet"}
    for obj in found:  # untrained sizes are near the means: they are relative to them
        assert np.allclose(obj.dimensions, SIZES[obj.type], atol=0.8)
    record = json.loads((folder / "metrics.jsonl").read_text())
    assert set(record["ap"]) == {"Forklift 3D moderate AP40", "Pallet 3D moderate AP40"}
    assert all(f"<caption>{name}</caption>" in (folder / "report.html").read_text() for name in ap["classes"])
    said = capsys.readouterr().out
    assert re.search(r"Forklift 3D +official 0\.60 ", said) and re.search(r"Forklift 3D +loose 0\.30 ", said)


def test_labels_as_detections_score_what_can_be_scored(root, tmp_path, capsys):
    labels, results = root / "training/label_2", tmp_path / "results"
    results.mkdir()
    for path in labels.iterdir():
        text = "".join(line + " 0.9\n" for line in path.read_text().splitlines())
        (results / path.name).write_text(text.replace("Pallet", "Forklift", 1) if path.stem == "hall-0" else text)
    ids = [f"hall-{k}" for k in range(4)]
    result = evaluate_kitti(labels, results, ids, ["Forklift", "Pallet"], own_overlaps={"Pallet": (0.9, 0.4)})
    assert result.ap("Pallet", "3d", "hard") == pytest.approx(result.ap("Pallet", "3d", "hard", "loose"))
    assert result.overlaps["official"]["Pallet"]["3d"] == 0.9 and result.overlaps["official"]["Forklift"]["3d"] == 0.5
    # every forklift is found; the pallet that is called one is a false positive, and a pallet is missed
    curve = result.curves["official", "Forklift", "3d", "hard"]
    assert (curve.true_positives[-1], curve.false_positives[-1]) == (4, 1)
    curve = result.curves["official", "Pallet", "3d", "hard"]
    assert (curve.true_positives[-1], curve.false_positives[-1]) == (3, 0) and curve.n_ground_truth == 4
    (tmp_path / "ids.txt").write_text("\n".join(ids))
    arguments = ["--labels", str(labels), "--results", str(results), "--ids", str(tmp_path / "ids.txt")]
    assert evaluate_command.main([*arguments, "--classes", "Forklift", "Pallet"]) == 0
    own = ["--classes", "Forklift", "Pallet", "--overlaps"]
    assert evaluate_command.main([*arguments, "--json", str(tmp_path / "own.json"), *own, "Pallet=0.9,0.4"]) == 0
    capsys.readouterr()
    assert json.loads((tmp_path / "own.json").read_text()) == json.loads(json.dumps(result.to_json()))
    for mistake, said in (
        ("Pallet=0.4,0.9", "expected 0 <= loose <= official < 1"),
        ("Pallet=0.4", "expected NAME=OFFICIAL,LOOSE"),
        ("Crate=0.4,0.2", "expected one of --classes"),
    ):
        assert evaluate_command.main([*arguments, *own, mistake]) == 2
        assert said in capsys.readouterr().err
    assert evaluate_command.main([*arguments, "--classes", "Fork"]) == 0
    assert "Fork: no label is of this class; types found: 'Forklift' 4, 'Pallet' 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dataset.writelist=[Car]", "dataset.writelist must be one of Forklift, Pallet, got 'Car'"),
        ("dataset.class_names=[]", "dataset.class_names must be a list with at least one class"),
        ("dataset.class_names=[Forklift,DontCare]", "not DontCare, got 'DontCare'"),
        ("dataset.class_names=[Forklift,'two words']", "got 'two words'"),
        ("dataset.mean_sizes={Forklift: [1,2,3]}", "dataset.mean_sizes must be given for Pallet, because meanshape"),
        ("dataset.mean_sizes={Forklift: [1,2], Pallet: [1,1,1]}", "mean_sizes.Forklift must be [height, width, len"),
        ("dataset.mean_sizes={Crane: [1,2,3]}", "dataset.mean_sizes must be one of Forklift, Pallet, got 'Crane'"),
        ("dataset.mean_sizes=3", "dataset.mean_sizes must be a mapping"),
        ("dataset.class_merging=true", "dataset.class_merging must be false without a class Car"),
        ("model.num_class=3", "model.num_class must be 0 or 2"),
        ("tester.overlaps={Pallet: [0.2, 0.5]}", "tester.overlaps.Pallet must be [official, loose]"),
        ("dataset.class_names=[Forklift,Pallet,pallet]", "dataset.class_names must be without repeats"),
        ("tester.overlaps={Car: [0.3, 0.1]}", "must be given for other classes than Pedestrian, Car, Cyclist"),
        ("tester.overlaps={Crane: [0.5, 0.2]}", "tester.overlaps must be one of Forklift, Pallet, got 'Crane'"),
    ],
)
def test_mistakes_in_the_configuration_are_named(root, capsys, change, said):
    assert train_val.main(["--config", "mine.yaml", "--set", change]) == 2
    assert said in capsys.readouterr().err


def test_a_class_without_labels_to_train_on_is_named_before_training(root, tmp_path, capsys):
    for path in (root / "training/label_2").iterdir():
        path.write_text(path.read_text().splitlines()[0] + "\n")
    assert make_obj_depth.main(["--dataroot", str(root)]) == 0
    assert train_val.main(["--config", "mine.yaml"]) == 2
    assert "not one object of Pallet in split 'train' is trained on" in capsys.readouterr().err
    assert not (tmp_path / "outputs/mine/checkpoints").exists()
    assert check_dataset.main(["--dataroot", str(root)]) == 1
    assert "'Forklift' is none of Car, Van" in capsys.readouterr().out


def test_jpegs_are_read_as_they_are_stored(root, tmp_path):
    """With segments before the frame header, an EXIF orientation, and bytes after the end mark."""
    folder = root / "training/image_2"
    frames = KITTI(root, "train")
    assert frames.read(0).image.shape == (360, 640, 3)
    content = (folder / "hall-0.jpg").read_bytes()
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"  # orientation 6: turn right
    turned = content[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + content[2:] + b"\0" * 100
    path = tmp_path / "a.jpeg"
    path.write_bytes(turned)
    assert cv2.imread(str(path)).shape == (640, 360, 3)  # OpenCV turns it by default
    assert read_image_header(path).size == (640, 360) == read_image(path).shape[1::-1]
    assert np.array_equal(read_image(path), frames.read(0).image)
    assert find_image(tmp_path, "a") == path and find_image(tmp_path, "b") == tmp_path / "b.png"
    for broken, said in ((turned[:-3000], "cut off"), (b"\xff\xd8\xff\xd9", "not a JPEG"), (b"", "not a JPEG")):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"a\.jpeg: .*{said}"):
            read_image_header(path)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_upright_as_by_opencv(tmp_path, endian, orientation):
    image = cv2.resize(np.random.default_rng(0).integers(0, 255, (4, 6, 3), dtype=np.uint8), (60, 40))
    exif, path = Image.Exif(), tmp_path / "a.jpg"
    exif.endian, exif[0x10F], exif[0x112] = endian, "a maker", orientation
    Image.fromarray(image).save(path, exif=exif)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert (expected.shape == (60, 40, 3)) == (orientation > 4)
    upright = read_image(path, upright=True)
    assert np.array_equal(upright, expected) and upright.flags["C_CONTIGUOUS"]
    assert read_image_header(path).upright_size == upright.shape[1::-1]
    assert read_image_header(path).size == (60, 40) == read_image(path).shape[1::-1]
