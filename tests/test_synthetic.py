"""The rendered data set: files, labels that agree with each other and with the image, reproducibility, refusals."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.structures import Calibration, Object3d, read_objects
from lib.synthetic import layout_scene, random_scene, render
from lib.synthetic.appearance import OBJECT_TYPES, solid_of
from lib.synthetic.files import KITTI_P2, NATIVE_SIZE, calibration_text, scale_P2
from lib.synthetic.ground import ground_rays
from lib.synthetic.labels import clip_box, occlusion_state
from lib.synthetic.render import far_to_near
from lib.synthetic.scene import Prop, Scene
from lib.synthetic.traffic import footprints_overlap
from tests.conftest import PROJECT
from tools.make_synthetic_kitti import main

SMALL = (414, 125)
SHARED = Path(__file__).resolve().parents[2] / "shared" / "kitti" / "frames" / "training"


def make(kind: str, dimensions: tuple[float, float, float], place: tuple[float, float, float], turn: float) -> Object3d:
    return Object3d(kind, 0.0, 0, 0.0, (0.0, 0.0, 0.0, 0.0), dimensions, place, turn)


def scene_with(*objects: Object3d, size: tuple[int, int] = SMALL) -> Scene:
    """A fixed street with the given objects and no clutter."""
    return replace(random_scene(0, 0, size), objects=objects, props=())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "data"
    status = main(f"--out {out} --train 3 --val 2 --test 1 --seed 3 --size 414x125 --workers 1".split())
    assert status == 0
    return out


def test_layout_is_complete_and_parses(written: Path) -> None:
    lists = {p.stem: p.read_text().split() for p in (written / "ImageSets").iterdir()}
    assert lists["train"] == ["000000", "000001", "000002"]
    assert lists["val"] == ["000003", "000004"]
    assert lists["trainval"] == lists["train"] + lists["val"]
    assert lists["test"] == ["000000"]
    for frame_id in lists["trainval"]:
        image = cv2.imread(str(written / "training" / "image_2" / f"{frame_id}.png"))
        assert image.shape == (125, 414, 3)
        calibration = Calibration.from_file(written / "training" / "calib" / f"{frame_id}.txt")
        np.testing.assert_allclose(calibration.fu, KITTI_P2[0, 0] * 414 / 1242, rtol=1e-9)
        np.testing.assert_allclose(calibration.fv, KITTI_P2[1, 1] * 125 / 375, rtol=1e-9)
        assert read_objects(written / "training" / "label_2" / f"{frame_id}.txt")
    assert (written / "testing" / "image_2" / "000000.png").is_file()
    assert not (written / "testing" / "label_2").exists()
    assert not list(written.rglob("*.part"))


def test_files_do_not_depend_on_workers_or_on_the_number_of_frames(written: Path, tmp_path: Path) -> None:
    out = tmp_path / "other"
    assert main(f"--out {out} --train 3 --val 2 --test 1 --seed 3 --size 414x125 --workers 2".split()) == 0
    assert contents(out) == contents(written)
    single, other_seed = tmp_path / "single", tmp_path / "seed"
    assert main(f"--out {single} --train 1 --val 0 --seed 3 --size 414x125 --workers 1".split()) == 0
    assert main(f"--out {other_seed} --train 1 --val 0 --seed 4 --size 414x125 --workers 1".split()) == 0
    image = Path("training/image_2/000000.png")
    assert (single / image).read_bytes() == (written / image).read_bytes()
    assert (other_seed / image).read_bytes() != (written / image).read_bytes()
    testing = Path("testing/image_2/000000.png")
    assert (single / testing).read_bytes() != (single / image).read_bytes()


def test_calibration_file_has_all_keys_of_a_real_one() -> None:
    text = calibration_text(KITTI_P2, NATIVE_SIZE)
    keys = [line.split(":")[0] for line in text.splitlines() if line]
    assert keys == ["P0", "P1", "P2", "P3", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo"]
    assert [len(line.split()) - 1 for line in text.splitlines() if line] == [12, 12, 12, 12, 9, 12, 12]
    assert scale_P2(KITTI_P2, (1242, 375), (621, 375))[0, 2] == pytest.approx(KITTI_P2[0, 2] / 2)


@pytest.mark.kitti
def test_calibration_file_equals_a_real_one() -> None:
    real = SHARED / "calib" / "000010.txt"
    if not real.is_file():
        pytest.skip(f"real KITTI files are missing: {real}")
    assert calibration_text(KITTI_P2, NATIVE_SIZE) == real.read_text()


def projected_box(item: Object3d, calibration: Calibration) -> np.ndarray:
    pixels = calibration.project(item.corners_cam())
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


@pytest.mark.parametrize("frame", range(4))
def test_labels_agree_with_each_other_and_with_the_image(frame: int) -> None:
    scene = random_scene(11, frame, SMALL)
    rendered = render(scene)
    width, height = scene.size
    assert rendered.image_bgr.shape == (height, width, 3)
    assert rendered.image_bgr.dtype == np.uint8
    assert rendered.objects
    for label, instance in zip(rendered.objects, rendered.instance_of, strict=True):
        assert Object3d.from_line(label.to_label_line()) == label  # nothing is lost by the two decimals
        x1, y1, x2, y2 = label.bbox_img
        assert 0 <= x1 < x2 <= width - 1
        assert 0 <= y1 < y2 <= height - 1
        rows, columns = np.nonzero(rendered.instances == instance)
        assert columns.min() >= x1 - 1.5
        assert columns.max() <= x2 + 1.5
        assert rows.min() >= y1 - 1.5
        assert rows.max() <= y2 + 1.5
        if label.type == "DontCare":
            continue
        source = scene.objects[instance - 1]
        assert (label.location_cam, label.dimensions, label.rotation_y) == (
            source.location_cam,
            source.dimensions,
            source.rotation_y,
        )
        x, y, z = label.location_cam
        error = label.alpha - (label.rotation_y - math.atan2(x, z))
        assert abs(math.remainder(error, 2 * math.pi)) < 0.0051
        assert -math.pi <= label.alpha <= math.pi
        assert y == pytest.approx(scene.ground.y_at(x, z), abs=0.0051)
        if label.corners_cam()[:, 2].min() < 1:
            continue
        # the solid fills its 3D box: the tight box lies inside the projected one and is nearly as large
        outer = projected_box(label, scene.calibration)
        inner, _ = clip_box(tuple(outer), scene.size)
        assert np.all(np.array([x1, y1]) >= np.array(inner[:2]) - 0.02)
        assert np.all(np.array([x2, y2]) <= np.array(inner[2:]) + 0.02)
        assert (x2 - x1) * (y2 - y1) > 0.55 * (inner[2] - inner[0]) * (inner[3] - inner[1])


def test_objects_do_not_overlap_on_the_ground() -> None:
    for frame in range(6):
        objects = random_scene(5, frame, SMALL).objects
        for i, a in enumerate(objects):
            assert not any(footprints_overlap(a, b, margin=0.0) for b in objects[i + 1 :])
    car = make("Car", (1.5, 1.6, 4.0), (0.0, 1.65, 10.0), 0.0)
    assert footprints_overlap(car, replace(car, location_cam=(1.0, 1.65, 11.0)))
    assert not footprints_overlap(car, replace(car, location_cam=(0.0, 1.65, 12.0)), margin=0.2)


@pytest.mark.parametrize("kind", OBJECT_TYPES)
def test_every_solid_fills_exactly_its_box(kind: str) -> None:
    sizes = {"Pedestrian": (1.8, 0.6, 0.8), "Person_sitting": (1.3, 0.6, 0.8), "Cyclist": (1.7, 0.6, 1.8)}
    size = sizes.get(kind, (2.1, 1.9, 5.0))
    item = make(kind, size, (0.0, 1.65, 10.0), 0.0)
    corners = solid_of(item, np.random.default_rng(0)).corners.reshape(-1, 3)
    h, w, length = size
    low, high = corners.min(axis=0), corners.max(axis=0)
    np.testing.assert_allclose(low, [-length / 2, -h, -w / 2], atol=1e-9)
    np.testing.assert_allclose(high, [length / 2, 0, w / 2], atol=1e-9)


def test_unknown_type_is_refused() -> None:
    with pytest.raises(ValueError, match="Spaceship"):
        solid_of(make("Spaceship", (1, 1, 1), (0, 1, 9), 0.0), np.random.default_rng(0))


def test_nearer_object_hides_the_farther_one_and_occlusion_is_measured() -> None:
    near = make("Van", (2.2, 1.9, 5.0), (0.0, 1.65, 10.0), -1.57)
    far = make("Car", (1.5, 1.6, 4.0), (0.3, 1.65, 22.0), -1.57)
    for objects in ((near, far), (far, near)):
        rendered = render(scene_with(*objects))
        assert [o.type for o in rendered.objects] == ["Van"]  # the car is entirely hidden: no line
        assert set(np.unique(rendered.instances)) == {0, objects.index(near) + 1}
    beside = replace(far, location_cam=(2.2, 1.65, 22.0))
    partly = {o.type: o for o in render(scene_with(beside, near)).objects}
    assert partly["Van"].occluded == 0
    assert partly["Car"].occluded in (1, 2)
    alone = {o.type: o for o in render(scene_with(beside)).objects}
    assert alone["Car"].occluded == 0
    assert alone["Car"].bbox_img == partly["Car"].bbox_img  # the box holds the hidden part, too


def test_drawing_order_follows_walls_and_not_centres() -> None:
    # the lorry's centre is nearer than the car's, yet the car stands between its rear and the camera's side
    lorry = make("Truck", (3.2, 2.5, 12.0), (4.0, 1.65, 14.0), -1.57)
    car = make("Car", (1.5, 1.6, 4.0), (1.2, 1.65, 16.5), -1.57)
    assert math.hypot(4.0, 14.0) < math.hypot(1.2, 16.5)
    assert far_to_near([(1, lorry), (2, car)]) == [1, 2]
    assert far_to_near([(2, car), (1, lorry)]) == [1, 2]


def test_clutter_hides_what_is_behind_it_and_nothing_else() -> None:
    car = make("Car", (1.5, 1.6, 4.0), (-4.0, 1.65, 12.0), 1.57)
    scene = scene_with(car)
    whole = np.count_nonzero(render(scene).instances)
    behind, beside = Prop("pole", -5.6, 13.5, 3.0, 0), Prop("pole", -18.0, 9.5, 3.0, 0)
    assert math.hypot(beside.x, beside.z) > math.hypot(behind.x, behind.z)  # must not hold the other one back
    assert np.count_nonzero(render(replace(scene, props=(behind, beside))).instances) == whole
    before = Prop("pole", -2.8, 8.0, 3.0, 0)
    assert 0.5 * whole < np.count_nonzero(render(replace(scene, props=(before,))).instances) < whole


def test_occlusion_states() -> None:
    assert [occlusion_state(share) for share in (1.0, 0.86, 0.84, 0.51, 0.49, 0.13, 0.11)] == [0, 0, 1, 1, 2, 2, 3]


def test_truncation_is_the_share_of_the_box_outside() -> None:
    box, truncated = clip_box((-50.0, 10.0, 50.0, 60.0), (200, 100))
    assert box == (0.0, 10.0, 50.0, 60.0)
    assert truncated == pytest.approx(0.5)
    assert clip_box((10.0, 10.0, 50.0, 60.0), (200, 100))[1] == 0.0
    cut = make("Car", (1.5, 1.6, 4.0), (4.5, 1.65, 4.5), -1.57)
    (label,) = render(scene_with(cut)).objects
    assert 0.2 < label.truncated < 0.95
    assert label.bbox_img[2] == SMALL[0] - 1


def test_what_is_outside_or_behind_gets_no_line() -> None:
    outside = make("Car", (1.5, 1.6, 4.0), (40.0, 1.65, 10.0), 0.0)
    behind = make("Car", (1.5, 1.6, 4.0), (0.0, 1.65, -10.0), 0.0)
    assert render(scene_with(outside, behind)).objects == ()


def test_far_cars_are_dontcare_in_random_scenes_only() -> None:
    far = make("Car", (1.5, 1.6, 4.0), (0.0, 1.65, 75.0), -1.57)
    assert [o.type for o in render(scene_with(far, size=NATIVE_SIZE)).objects] == ["DontCare"]
    assert [o.type for o in render(scene_with(far, size=NATIVE_SIZE), math.inf).objects] == ["Car"]


def test_ground_is_seen_in_true_perspective() -> None:
    scene = random_scene(2, 0, SMALL)
    first, x, z, valid = ground_rays(scene.size, scene.calibration, scene.ground)
    for row, column in ((first + 30, 20), (SMALL[1] - 1, 400)):
        point = x[row - first, column], z[row - first, column]
        assert valid[row - first, column]
        world = np.array([[point[0], scene.ground.y_at(*point), point[1]]], dtype=np.float64)
        np.testing.assert_allclose(scene.calibration.project(world)[0], [column, row], atol=0.01)


def test_colour_does_not_carry_depth() -> None:
    near = make("Car", (1.5, 1.6, 4.0), (0.0, 1.65, 10.0), -1.57)
    scenes = [scene_with(near), scene_with(replace(near, location_cam=(0.0, 1.65, 20.0)))]
    means = []
    for scene in scenes:
        rendered = render(replace(scene, look=replace(scene.look, noise=0.0)))
        means.append(rendered.image_bgr[rendered.instances == 1].mean())
    assert means[0] == pytest.approx(means[1], rel=0.12)


def write_layout(root: Path, lines: list[str], ids: tuple[str, ...] = ("000004", "000007", "000009")) -> Path:
    labels = root / "training" / "label_2"
    labels.mkdir(parents=True)
    (root / "training" / "calib").mkdir()
    for frame_id in ids:
        (labels / f"{frame_id}.txt").write_text("".join(f"{line}\n" for line in lines))
        (root / "training" / "calib" / f"{frame_id}.txt").write_text(calibration_text(KITTI_P2, NATIVE_SIZE))
    return labels


def test_layouts_keep_types_sizes_poses_and_ids(tmp_path: Path) -> None:
    lines = [
        "Car 0.00 0 1.55 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62",
        "Person_sitting 0.00 0 0.0 0 0 9 9 1.28 0.55 0.80 -3.00 1.70 9.00 0.40",
        "Tram 0.00 0 0.0 0 0 9 9 3.50 2.50 14.00 -7.00 1.70 40.00 -1.50",
        "Misc 0.00 0 0.0 0 0 9 9 1.90 1.50 3.00 6.00 1.70 20.00 2.40",
        "Truck 0.00 0 0.0 0 0 9 9 3.20 2.60 9.00 9.00 1.70 45.00 1.50",
        "DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10",
    ]
    labels = write_layout(tmp_path, lines)
    out = tmp_path / "out"
    command = f"--out {out} --train 2 --val 1 --layouts {labels} --size 414x125 --workers 1"
    assert main(command.split()) == 0
    assert (out / "ImageSets" / "train.txt").read_text().split() == ["000004", "000007"]
    assert (out / "ImageSets" / "val.txt").read_text().split() == ["000009"]
    rendered = read_objects(out / "training" / "label_2" / "000007.txt")
    wanted = [Object3d.from_line(line) for line in lines[:-1]]
    key = [(o.type, o.dimensions, o.location_cam, o.rotation_y) for o in wanted]
    assert [(o.type, o.dimensions, o.location_cam, o.rotation_y) for o in rendered] == key


def test_layout_follows_split_lists_beside_it(tmp_path: Path) -> None:
    labels = write_layout(tmp_path, ["Car 0 0 0 0 0 9 9 1.57 1.73 4.15 1.00 1.75 13.22 1.62"])
    lists = tmp_path / "ImageSets"
    lists.mkdir()
    (lists / "train.txt").write_text("000009\n000004\n")
    (lists / "val.txt").write_text("000007\n")
    out = tmp_path / "out"
    assert main(f"--out {out} --train 1 --val 1 --layouts {labels} --size 207x63 --workers 1".split()) == 0
    assert (out / "ImageSets" / "train.txt").read_text().split() == ["000009"]
    assert (out / "ImageSets" / "val.txt").read_text().split() == ["000007"]


@pytest.mark.kitti
def test_real_layout_gives_boxes_like_the_annotators(tmp_path: Path) -> None:
    label, calib = SHARED / "label_2" / "000010.txt", SHARED / "calib" / "000010.txt"
    if not label.is_file():
        pytest.skip(f"real KITTI files are missing: {label}")
    scene = layout_scene(label, calib, seed=0)
    assert scene.size == (1242, 375)
    rendered = render(scene, math.inf)
    real = {o.location_cam: o for o in read_objects(label) if o.type != "DontCare"}
    assert len(rendered.objects) >= 7
    for item in rendered.objects:
        original = real[item.location_cam]
        assert (item.type, item.dimensions, item.rotation_y) == (
            original.type,
            original.dimensions,
            original.rotation_y,
        )
        # hand-drawn boxes are a few pixels loose
        np.testing.assert_allclose(item.bbox_img, original.bbox_img, atol=16)


def test_a_folder_with_contents_is_refused(written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(written)
    assert main(f"--out {written} --train 1 --val 1".split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "not empty" in error
    assert contents(written) == before
    foreign = tmp_path / "kitti"
    (foreign / "training").mkdir(parents=True)
    (foreign / "training" / "precious").write_text("x")
    assert main(f"--out {foreign} --train 1 --val 1 --force".split()) == 2
    assert (foreign / "training" / "precious").read_text() == "x"


def test_force_replaces_an_own_data_set_and_leaves_nothing_stale(tmp_path: Path) -> None:
    out = tmp_path / "out"
    small = "--size 207x63 --workers 1 --test 0"
    assert main(f"--out {out} --train 2 --val 1 {small}".split()) == 0
    (out / "training" / "obj_depth").mkdir()
    assert main(f"--out {out} --train 1 --val 0 --force {small}".split()) == 0
    assert [p.name for p in (out / "training" / "image_2").iterdir()] == ["000000.png"]
    assert not (out / "training" / "obj_depth").exists()
    assert (out / "ImageSets" / "val.txt").read_text() == ""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--train -1 --val 1", "--train"),
        ("--train 1 --val two", "two"),
        ("--train 0 --val 0", "nothing to render"),
        ("--train 1 --val 1 --size 100", "WIDTHxHEIGHT"),
        ("--train 1 --val 1 --size 8x8", "8x8"),
        ("--train 1 --val 1 --layouts /nowhere/label_2", "/nowhere/label_2"),
        ("--val 1", "--train"),
    ],
)
def test_bad_arguments_give_one_line_and_status_2(
    arguments: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    try:
        status = main(["--out", str(out), *arguments.split()])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    assert says in error
    assert not out.exists()


def test_broken_layout_names_file_and_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write_layout(tmp_path, ["Car 0.00 0 1.55"])
    assert main(f"--out {tmp_path / 'out'} --train 1 --val 0 --layouts {labels} --workers 1".split()) == 2
    assert "000004.txt, line 1" in capsys.readouterr().err
    assert main(f"--out {tmp_path / 'more'} --train 9 --val 0 --layouts {labels}".split()) == 2
    assert "9 train frames wanted" in capsys.readouterr().err


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_line_and_leaves_no_lists(tmp_path: Path, workers: int) -> None:
    """As from a terminal, which sends it to the worker processes too."""
    out = tmp_path / "out"
    command = f"tools/make_synthetic_kitti.py --out {out} --train 5000 --val 1 --size 414x125 --workers {workers}"
    process = subprocess.Popen(
        [sys.executable, *command.split()],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 120
    while not any((out / "training/label_2").glob("*.txt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=120)[0]
    assert process.returncode == 130, said
    assert "Traceback" not in said and said.splitlines()[-1] == "ended by Ctrl-C"
    assert not any((out / "ImageSets").iterdir())
