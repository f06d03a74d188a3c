"""tools/predict.py and the detector, with an untrained network in which every peak is a detection."""

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

from lib.analysis.ideal_outputs import ideal_outputs
from lib.config import dump_config, parse_config
from lib.engine.checkpoint import read_checkpoint, save_checkpoint
from lib.models import build_model
from lib.ops.heads import OBJECT_HEADS
from lib.postprocess import decode_detections
from lib.prediction import load_detector, writing
from lib.prediction.options import PredictOptions
from lib.prediction.sources import ImageFile, Video, find_source
from lib.structures import Calibration, Object3d, read_objects
from lib.structures.camera import KITTI_P2, assumed_kitti_camera, camera_from_intrinsics
from lib.visualization.video import open_video
from tests.conftest import CALIB
from tools import predict, train_val

CONFIG = parse_config(
    yaml.safe_load("""
general: {obj_depth: true, exp_name: tiny}
dataset: {batch_size: 4, num_workers: 0, resolution: [320, 96], writelist: [Car, Pedestrian]}
model: {backbone: dla34_narrow, pretrained: false}
tester: {threshold: 0.0, topk: 20}
""")
)
KITTI_FOCAL_NET = 721.5377 * 320 / 1242


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model whose heads differ from cell to cell: boxes of all classes, as large as cars, at about 15 m."""
    torch.manual_seed(0)
    model = build_model(CONFIG).eval()
    image = torch.from_numpy(texture(320, 96)).permute(2, 0, 1)[None]
    means = {"heatmap": [-2.0] * 3, "depth": [-math.log(15), 0.0], "size_3d": [1.5, 1.6, 4.0], "size_2d": [8.0, 8.0]}
    spread = {"heatmap": 1.0, "heading": 1.0}
    with torch.no_grad():
        features = model(image)["features"]
        for name in ("heatmap", *OBJECT_HEADS):
            layer = getattr(model, name)[2]
            torch.nn.init.normal_(layer.weight)
            values = getattr(model, name)(features).flatten(2)[0]
            scale = spread.get(name, 0.2) / values.std(dim=1)
            layer.weight *= scale[:, None, None, None]
            layer.bias[:] = torch.tensor(means.get(name, 0.0)) - (values.mean(dim=1) - layer.bias) * scale
    path = tmp_path_factory.mktemp("model") / "tiny.pth"
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    save_checkpoint(path, model, optimizer, 1, dump_config(CONFIG), None, focal_net=KITTI_FOCAL_NET)
    return path


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load_detector(checkpoint, device="cpu")


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch):
    """Calls the command in an empty working directory; returns its status."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments, model=checkpoint, out="out"):
        return predict.main(["--checkpoint", str(model), "--out", out, *map(str, arguments)])

    return call


@pytest.fixture
def errors(run, capfd):
    """Calls the command, which must fail; returns what is printed to stderr, by libraries too."""

    def call(*arguments, **options):
        capfd.readouterr()
        status, output = run(*arguments, **options), capfd.readouterr().err
        assert status == 2 and output.splitlines()[-1].startswith("error: "), output
        return output

    return call


def texture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_images(folder, names, size=(320, 96)):
    folder.mkdir(exist_ok=True)
    for k, name in enumerate(names):
        cv2.imwrite(str(folder / name), texture(*size, seed=k))
    return folder


def texts(folder):
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


# --- results


def test_results_on_kitti_are_those_of_the_evaluation(run, checkpoint, tiny_kitti, capsys):
    (Path("tiny.yaml")).write_text(yaml.safe_dump(dump_config(CONFIG)))
    overrides = [f"general.dataroot={tiny_kitti}", f"tester.checkpoint={checkpoint}", "trainer.gpu_ids=[]"]
    assert train_val.main(["--config", "tiny.yaml", "-e", "--set", *overrides]) == 0
    (evaluated,) = Path("outputs/tiny/results").glob("*/val/data")
    capsys.readouterr()
    training = tiny_kitti / "training"
    assert run("--cpu", "--input", training / "image_2", "--calib", training / "calib") == 0
    assert texts("out/data") == texts(evaluated)
    found = [read_objects(path) for path in sorted(Path("out/data").iterdir())]
    assert [len(objects) for objects in found] == [20] * 4
    assert sorted(texts("out/images")) == [f"00000{k}.png" for k in range(4)]
    assert cv2.imread("out/images/000002.png").shape == (375, 1242 + 375, 3)
    assert len(json.loads(Path("out/predict.json").read_text())["files"]) == 8
    output = capsys.readouterr().out
    assert "1.000 times that of the training (185.9 px at network resolution): that is within 5%" in output
    assert "network input: 320 x 96" in output and "4 images in" in output and "80 detections: out/data" in output


def test_one_jpeg_of_another_shape_with_a_focal_length(run, capsys):
    cv2.imwrite("a b.JPG", texture(640, 480))
    assert run("--input", "a b.JPG", "--fx", 500, "--classes", "Car", "Cyclist", "--no-images") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["data", "predict.json"]
    objects = read_objects(Path("out/data/a b.txt"))
    assert {o.type for o in objects} <= {"Car", "Cyclist"} and 0 < len(objects) < 20
    output = capsys.readouterr().out
    assert "network input: 320 x 256" in output
    assert f"{500 / 2 / KITTI_FOCAL_NET:.3f} times" in output and "depths are multiplied by it" in output
    assert run("--input", "a b.JPG", "--fx", 5, out="other") == 0
    assert "are the camera's numbers in pixels" in capsys.readouterr().out
    assert run("--input", "a b.JPG", "--fx", 0.9, out="third") == 2
    assert "fx must be a number of pixels, at least 1, got 0.9" in capsys.readouterr().err


def test_folders_come_in_natural_order_with_any_suffix(tmp_path):
    folder = write_images(tmp_path / "in", ["10.png", "2.PNG", "1.jpeg", "b1.jpg"])
    for name in ("notes.txt", ".hidden.png"):
        (folder / name).write_bytes(b"")
    (folder / "sub.png").mkdir()
    assert [image.path.name for image in find_source(folder)] == ["1.jpeg", "2.PNG", "10.png", "b1.jpg"]


def test_scores_and_classes_are_chosen_and_nothing_else_changes(run, tmp_path):
    folder = write_images(tmp_path / "in", ["0.png", "1.png"])

    def objects(out, *options):
        assert run("--input", folder, "--fx", 186, "--no-images", *options, out=out) == 0
        return [o for name in texts(f"{out}/data") for o in read_objects(Path(out, "data", name))]

    found = objects("all")
    score = float(np.median([o.score for o in found if o.type == "Car"])) + 0.005  # two decimals are written
    some = objects("some", "--min-score", score, "--classes", "Car")
    assert some == [o for o in found if o.type == "Car" and o.score > score]
    assert 0 < len(some) < sum(o.type == "Car" for o in found) < len(found)
    assert objects("none", "--threshold", 1) == [] and len(texts("none/data")) == 2


def test_images_of_many_sizes_with_a_calibration_each(run, errors, tmp_path, capfd):
    folder, calib = tmp_path / "in", tmp_path / "calib"
    calib.mkdir()
    for name, size in (("a", (320, 96)), ("b", (160, 120)), ("c", (330, 96)), ("d", (96, 192))):
        write_images(folder, [f"{name}.png"], size)
        (calib / f"{name}.txt").write_text(f"P2: {size[0]} 0 {size[0] / 2} 0 0 {size[0]} {size[1] / 2} 0 0 0 1 0\n")
    assert run("--input", folder, "--calib", calib) == 0
    assert list(texts("out/data")) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    output = capfd.readouterr().out
    assert "320 x 96 (2 images), 320 x 256 (1 image), 320 x 640 (1 image)" in output
    for camera in (("--fx", 186), ("--calib", calib / "a.txt")):
        output = errors("--input", folder, *camera, out="other")
        assert "a.png is 320 x 96, b.png is 160 x 120" in output and "--calib FOLDER" in output


# --- geometry


@pytest.mark.parametrize("size", [(1242, 375), (1224, 370), (1920, 1080), (1080, 1920), (640, 480), (4000, 500)])
@pytest.mark.parametrize("resolution", [None, (640, 384)])
def test_depth_from_sizes_gives_the_same_box_with_any_camera(detector, size, resolution):
    """A network that uses sizes only predicts z * (focal length of its training) / (focal length of the input)."""
    detector = replace(detector, resolution=resolution)
    for focal in (0.25, 0.8, 1.2, 3.0):
        camera = camera_from_intrinsics(size, focal * size[0], cx=0.45 * size[0])
        u, v = camera.project(np.array([[-1.5, 0.45, 22.0]]))[0]
        alpha, bbox_img = camera.rotation_y_to_alpha(0.3, u), (u - 20, v - 20, u + 20, v + 20)
        car = Object3d("Car", 0.0, 0, alpha, bbox_img, (1.5, 1.6, 4.0), (-1.5, 1.2, 22.0), 0.3)
        frame, settings = detector.frame("x", size, camera), detector.settings(size)
        outputs = ideal_outputs(frame, [car], replace(CONFIG.dataset, resolution=settings.resolution), 1).outputs
        read = 22 * KITTI_FOCAL_NET / (focal * settings.resolution[0])
        outputs["depth"][..., 0] = -math.log(read)
        (decoded,) = decode_detections(outputs, [frame], replace(settings, map_to_image="exact"))[0]
        assert decoded.location_cam == pytest.approx(car.location_cam, rel=5e-4)
        assert decoded.dimensions == pytest.approx(car.dimensions) and decoded.rotation_y == pytest.approx(0.3)
        (untouched,) = decode_detections(outputs, [replace(frame, depth_scale=1.0)], settings)[0]
        assert untouched.location_cam[2] == pytest.approx(read, rel=5e-4)


def test_depth_is_multiplied_beyond_five_percent_only(detector):
    image = texture(640, 192)
    focal = KITTI_FOCAL_NET * 2  # the image is scaled down by 2

    def locations(factor, detector=detector):
        camera = camera_from_intrinsics((640, 192), focal * factor)
        found = detector(image, camera)
        return np.array([o.location_cam for o in found]) - [[0, o.dimensions[0] / 2, 0] for o in found]

    plain = locations(1.0)
    for factor in (0.5, 2.0):  # x = (u - cx) z / f: both z and f have changed
        assert locations(factor) == pytest.approx(plain * [1, 1, factor])
        unmoved = locations(factor, replace(detector, correct_depth=False))
        assert unmoved == pytest.approx(plain * [1 / factor, 1 / factor, 1])
    assert locations(1.04)[:, 2] == pytest.approx(plain[:, 2])
    assert locations(1.06)[:, 2] == pytest.approx(plain[:, 2] * 1.06)


def test_assumed_camera_is_kittis_where_it_can_be():
    assert np.allclose(assumed_kitti_camera((1242, 375)).P2, KITTI_P2)
    half = assumed_kitti_camera((621, 188))
    assert (half.fu, half.cv, half.tx) == pytest.approx((721.5377 / 2, 172.854 / 2, -44.85728 / 721.5377))
    other, focal = assumed_kitti_camera((1920, 1080)), pytest.approx(721.5377 * 1920 / 1242)
    assert (other.fu, other.fv, other.cu, other.cv, other.tx) == (focal, focal, 960, 540, 0)


# --- video


def write_video(path, frames=11, size=(320, 96), rate=12.5, codec="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), rate, size)
    for k in range(frames):
        writer.write(texture(*size, seed=k))
    writer.release()
    return path


def read_video(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while (found := capture.read())[0]:
        frames.append(found[1])
    return capture.get(cv2.CAP_PROP_FPS), frames


@pytest.mark.parametrize(("name", "codec"), [("drive 1.mp4", "mp4v"), ("b.avi", "MJPG"), ("c.mkv", "mp4v")])
def test_a_video_gives_a_video_and_a_file_for_each_frame(run, name, codec, capsys):
    path = write_video(Path(name), codec=codec)
    assert run("--input", name, "--fx", 150, "--overwrite") == 0, capsys.readouterr().err
    rate, frames = read_video(Path("out") / f"{path.stem}.mp4")
    assert rate == pytest.approx(12.5) and len(frames) == 11
    assert {frame.shape for frame in frames} == {(288, 960 + 288, 3)}  # three times the image, and the view beside it
    originals = read_video(path)[1]
    found = texts(Path("out/data") / path.stem)
    assert list(found) == [f"{k:06d}.txt" for k in range(11)]
    # the same as for its frames as images
    Path("frames").mkdir()
    for k, frame in enumerate(originals):
        cv2.imwrite(f"frames/{k:06d}.png", frame)
    assert run("--input", "frames", "--fx", 150, "--no-images", out="singly") == 0
    assert texts("singly/data") == found
    assert "11 frames in" in capsys.readouterr().out
    assert not list(Path("out").glob(".*"))


def test_few_frames_of_a_long_video_are_in_memory(detector, tmp_path, monkeypatch):
    taken, lead, real = [], [], writing.draw

    def frames(_):
        for k in range(40):
            taken.append(k)
            yield texture(320, 96, seed=k)

    def draw(found, objects):
        lead.append(len(taken) - int(found.frame.frame_id))
        return real(found, objects)

    monkeypatch.setattr(Video, "read", frames)
    monkeypatch.setattr(writing, "draw", draw)
    first = detector.frame("0", (320, 96), camera_from_intrinsics((320, 96), 150))
    options = PredictOptions(checkpoint=Path(), input=Path(), out=tmp_path, fx=150, classes=["Car"])
    counts = writing.predict_video(detector, Video(Path("x.mp4"), (320, 96), math.nan, 0), first, options)
    assert len(counts) == len(lead) == 40 and max(lead) <= 25
    assert read_video(tmp_path / "x.mp4")[0] == writing.DEFAULT_FRAME_RATE


def test_a_video_that_ends_early_is_reported(run, capsys):
    path = write_video(Path("a.avi"), frames=30, codec="MJPG")
    content = path.read_bytes()
    index = content.rindex(b"idx1")
    path.write_bytes(content[: index // 2])
    assert run("--input", path, "--fx", 150) == 0
    output = capsys.readouterr().out
    assert "a.avi: its header has 30 frames, but only" in output
    assert len(read_video("out/a.mp4")[1]) == len(texts("out/data/a")) < 20


# --- the checkpoint


def test_checkpoints_without_config_or_camera(run, errors, checkpoint, tmp_path, capfd):
    state = read_checkpoint(checkpoint)
    options = ("--input", write_images(tmp_path / "in", ["0.png"]), "--assume-kitti-camera")
    assert run(*options) == 0
    assert "KITTI" not in capfd.readouterr().out
    torch.save({name: state[name] for name in ("epoch", "model_state", "optimizer_state")}, "official.pth")
    assert "official.pth: it has no config" in errors(*options, model="official.pth", out="b")
    Path("x.yaml").write_text(yaml.safe_dump(dump_config(CONFIG)))
    assert run(*options, "--config", "x.yaml", model="official.pth", out="b") == 0
    output = capfd.readouterr().out
    assert "1.000 times that of the training (185.9 px at network resolution, that of KITTI, since the" in output
    assert texts("b/data") == texts("out/data")
    torch.save(state | {"config": {"model": {"backbone": "resnet"}}}, "other.pth")
    output = errors(*options, model="other.pth", out="c")
    assert "other.pth: the model of its config cannot be built: model.backbone must be one of" in output
    assert "no.pth: no such checkpoint" in errors(*options, model="no.pth", out="c")
    assert not Path("c").exists()


def test_a_detector_for_a_notebook(run, detector, checkpoint):
    image = texture(320, 96)
    cv2.imwrite("a.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert run("--input", "a.png", "--fx", 100, "--cpu") == 0
    calibration = camera_from_intrinsics((320, 96), 100)
    assert detector(image, calibration.P2) == (objects := detector(image, calibration))
    assert "".join(o.to_result_line() + "\n" for o in objects) == Path("out/data/a.txt").read_text()
    assert detector.focal_net_known and detector.model.obj_depth is None
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in detector.model.modules())
    assert replace(detector, threshold=1.0)(image, calibration) == []
    for bad in (image[..., 0], image.astype(np.float32), image[:0]):
        with pytest.raises(ValueError, match="expected an RGB image"):
            detector(bad, calibration)
    with pytest.raises(ValueError, match="P2 must be finite"):
        detector(image, np.zeros((3, 4)))
    assert detector.focal_ratio((1242, 375), Calibration(np.array(KITTI_P2))) == pytest.approx(1)


# --- files are complete or absent


def test_only_results_are_overwritten_and_only_with_the_option(run, errors, tmp_path):
    folder = write_images(tmp_path / "in", ["0.png", "1.png"])
    options = ("--input", folder, "--fx", 186)
    assert run(*options) == 0
    before = texts("out/data")
    assert "out: not empty" in errors(*options)
    (folder / "1.png").unlink()
    Path("out/data/mine.txt").write_text("mine")
    assert run(*options, "--no-images", "--overwrite") == 0
    assert texts("out/data") == {"0.txt": before["0.txt"], "mine.txt": b"mine"}
    assert not Path("out/images").exists()
    Path("file").write_text("")
    assert "file: is a file" in errors(*options, out="file")
    assert "lies in the folder of results" in errors(*options, "--overwrite", out=".")
    record = Path("out/predict.json")
    record.write_text(json.dumps({"files": ["../in/0.png", "data/0.txt"]}))
    assert run(*options, "--overwrite") == 0  # a record cannot lead out of its folder
    record.unlink()
    assert "not the folder of a prediction (no predict.json)" in errors(*options, "--overwrite")
    record.write_text("{")
    assert "predict.json: broken record" in errors(*options, "--overwrite")
    assert (folder / "0.png").is_file() and Path("out/data/mine.txt").is_file()


@pytest.mark.parametrize("frame_rate", [29.97, 66.6667, 239.9612, 0.0001])
def test_videos_of_odd_frame_rates_are_written(tmp_path, frame_rate):
    with open_video(tmp_path / "a.mp4", frame_rate) as append:
        for _ in range(3):
            append(np.zeros((48, 64, 3), np.uint8))
    rate, frames = read_video(tmp_path / "a.mp4")
    assert len(frames) == 3 and rate == pytest.approx(max(frame_rate, 0.01), abs=0.01)


def test_an_interrupted_run_leaves_whole_files(run, tmp_path, monkeypatch, capsys):
    folder = write_images(tmp_path / "in", [f"{k}.png" for k in range(20)])
    assert run("--input", folder, "--fx", 186, "--cpu", out="whole") == 0
    real = ImageFile.read

    def read(self):
        if self.path.stem == "15":
            raise KeyboardInterrupt
        return real(self)

    monkeypatch.setattr(ImageFile, "read", read)
    assert run("--input", folder, "--fx", 186, "--cpu") == 130
    assert "ended by Ctrl-C" in capsys.readouterr().err
    for part in ("data", "images"):
        whole, there = texts(f"whole/{part}"), texts(f"out/{part}")
        assert 0 < len(there) < 20 and there.items() <= whole.items()
    assert not list(Path("out").rglob(".*"))


def test_a_video_that_fails_leaves_none(run, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    write_video(Path("a.mp4"))

    def draw(found, objects):
        if found.frame.frame_id == "000005":
            raise OSError("no space left")
        return found.image

    monkeypatch.setattr(writing, "draw", draw)
    assert run("--input", "a.mp4", "--fx", 150) == 2
    assert "error: no space left" in capsys.readouterr().err
    assert not list(Path("out").glob("*.mp4")) and not list(Path("out").glob(".*"))


# --- errors


def test_bad_input(errors, tmp_path):
    fx = ("--fx", 186)
    assert "nowhere: no such file or folder" in errors("--input", "nowhere", *fx)
    (tmp_path / "empty").mkdir()
    assert "empty: no image in this folder (.png, .jpg, .jpeg" in errors("--input", "empty", *fx)
    folder = write_images(tmp_path / "in", ["0.png", "1.jpg", "2.png"])
    (folder / "2.jpg").touch()
    assert "2.jpg and 2.png would both be 2.txt" in errors("--input", folder, *fx)
    (folder / "2.jpg").unlink()
    whole = (folder / "1.jpg").read_bytes()
    (folder / "1.jpg").write_bytes(whole[:-500])
    assert "1.jpg: this JPEG is cut off" in errors("--input", folder, *fx)
    (folder / "1.jpg").write_bytes(whole)
    (tmp_path / "a.mp4").write_bytes(b"no video")
    (output,) = errors("--input", "a.mp4", *fx).splitlines()  # OpenCV prints nothing beside it
    assert output.startswith("error: a.mp4: neither an image (.png, .jpg, .jpeg) nor a video")
    assert not Path("out").exists()
    # the header is good, the pixels are not
    png = bytearray((folder / "2.png").read_bytes())
    place = png.index(b"IDAT")
    png[place + 4 : place + 200] = b"\0" * 196
    (folder / "2.png").write_bytes(png)
    assert "2.png: this image cannot be decoded" in errors("--input", folder, *fx)
    assert not list(Path("out").rglob(".*"))


P2 = "186 0 160 1.5 0 186 48 -3.454157e-01 0 0 1 0".split()  # older Pythons take the negative one for an option


def test_p2_has_the_format_of_kittis_files(run, tmp_path):
    folder = write_images(tmp_path / "in", ["a.png"])
    (tmp_path / "one.txt").write_text(f"P2: {' '.join(P2)}\n")
    assert run("--input", folder, "--calib", "one.txt", "--no-images", out="file") == 0
    for name, words in (("text", [" ".join(P2)]), ("words", P2), ("commas", [", ".join(P2)])):
        assert run("--input", folder, "--p2", *words, "--no-images", out=name) == 0
        assert texts(f"{name}/data") == texts("file/data")


@pytest.mark.parametrize(
    ("camera", "output"),
    [
        ((), "without a focal length all distances are wrong by an unknown factor; give --fx"),
        (("--fx", 186, "--p2", 1), "--fx and --p2 exclude each other"),
        (("--cy", 186, "--assume-kitti-camera"), "--cy needs --fx"),
        (("--fx", "0"), "fx must be a number of pixels, at least 1, got"),
        (("--fx", 186, "--fy", 0), "fy must be a number of pixels, at least 1, got 0"),
        (("--fx", 186, "--cx", "nan"), "cx must be a number of pixels, got nan"),
        (("--p2", *P2[:11]), "P2 must be 12 numbers, the rows of a 3 x 4 matrix, got 11"),
        (("--p2", *P2[:11], "x"), "P2 must be 12 numbers"),
        (("--p2", "0", *P2[1:]), "positive focal lengths"),
        (("--calib", "no"), "no: no such calibration file or folder"),
        (("--calib", "calib"), "b.txt: no such calibration; 1 of 2 are missing"),
        (("--calib", "broken.txt"), "broken.txt: no line 'P2: ...'"),
    ],
)
def test_bad_cameras(errors, tmp_path, camera, output):
    folder = write_images(tmp_path / "in", ["a.png", "b.png"])
    (tmp_path / "calib").mkdir()
    (tmp_path / "calib/a.txt").write_text(CALIB)
    (tmp_path / "broken.txt").write_text("P1: 1 2 3\n")
    assert output in errors("--input", folder, *camera)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("options", "output"),
    [
        (("--classes", "Car", "Tram"), "--classes: the model has no class 'Tram'; it has Pedestrian, Car, Cyclist"),
        (("--threshold", "1.5"), "--threshold must be in [0, 1], got 1.5"),
        (("--min-score", "nan"), "--min-score must be >= 0, got nan"),
        (("--resolution", "320", "100"), "--resolution must be two multiples of 32, got [320, 100]"),
        (("--resolution", "9600", "9600"), "a.png: an image of 320 x 96 would need a network input of 9600 x 9600"),
    ],
)
def test_bad_choices(errors, tmp_path, options, output):
    folder = write_images(tmp_path / "in", ["a.png"])
    assert output in errors("--input", folder, "--fx", 186, *options)
    assert not Path("out").exists()


def test_several_inputs_and_patterns(run, tmp_path, capsys):
    folder, other = write_images(tmp_path / "in", ["1.png", "2.png", "10.png"]), write_images(tmp_path / "b", ["x.png"])
    assert [image.path.stem for image in find_source(folder / "*.png", other)] == ["1", "2", "10", "x"]
    assert run("--input", folder / "1*.png", other / "x.png", "--fx", 186, "--device", "cpu") == 0
    assert set(texts("out/data")) == {"1.txt", "10.txt", "x.txt"}
    again = write_images(tmp_path / "c", ["x.png"])
    for inputs, message in (
        ([folder / "*.jpg"], "*.jpg: no such file or folder"),
        ([other, again], "would both be x.txt"),
        ([tmp_path / "*"], "the pattern matches the folder"),
        ([folder, "video.mp4"], "video.mp4: no such file or folder"),
        ([folder, 7], "7: not an image"),
    ):
        assert run("--input", *inputs, "--fx", 186, out="refused") == 2
        assert message in capsys.readouterr().err
    assert not Path("refused").exists()
    assert len(find_source(folder, folder / "2.png", Path(f"{folder}/../in/2.png"))) == 3  # each file once
    drawn = texts("out/images")
    assert run("--input", tmp_path / "o*t/images/*.png", "--fx", 186, "--overwrite") == 2
    assert "lies in the folder of results" in capsys.readouterr().err and texts("out/images") == drawn


def test_a_threshold_and_a_device(run, checkpoint, tmp_path, capsys):
    folder = write_images(tmp_path / "in", ["1.png"])
    for out, options in (("set", ("--set", "tester.threshold=0.45")), ("option", ("--threshold", 0.45)), ("all", ())):
        assert run("--input", folder, "--fx", 186, "--device", "cpu", *options, out=out) == 0
    assert texts("set/data") == texts("option/data") != texts("all/data")
    for name in ("cuda:7", "gpu", "meta"):
        assert run("--input", folder, "--fx", 186, "--device", name, out="refused") == 2
        assert f"--device: '{name}' cannot be used here" in capsys.readouterr().err


def test_a_camera_is_read_until_ctrl_c(run, monkeypatch, capsys):
    taken = []

    class Camera:
        def __init__(self, number):
            assert number == 0
            self.release = lambda: None

        def get(self, _):
            return 10.0

        def read(self):
            taken.append(1)
            if len(taken) == 7:
                os.kill(os.getpid(), signal.SIGINT)
            return True, texture(320, 96)

    real = cv2.VideoCapture
    opened = lambda source, *rest: Camera(source) if source == 0 else real(source, *rest)  # noqa: E731
    monkeypatch.setattr(cv2, "VideoCapture", opened)
    assert run("--input", 0, "--fx", 186, "--device", "cpu") == 0
    _, frames = read_video(Path("out/camera0.mp4"))
    assert 6 <= len(frames) == len(texts("out/data/camera0")) < 20
    monkeypatch.setattr(Camera, "read", lambda _: (False, None))
    assert run("--input", 0, "--fx", 186, out="none") == 2
    assert "--input 0: no such file, and OpenCV cannot read a camera" in capsys.readouterr().err
