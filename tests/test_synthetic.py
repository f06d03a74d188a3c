"""The rendered data set: files, labels that agree with each other and with the image, reproducibility, refusals."""

import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib.structures import KITTI_TYPES, Calibration, Object3d, read_objects
from lib.structures.camera import KITTI_P2, KITTI_SIZE
from lib.synthetic.appearance import OBJECT_TYPES, build_solid
from lib.synthetic.dataset import calibration_text
from lib.synthetic.footprints import far_to_near, footprints_overlap
from lib.synthetic.ground import ground_rays
from lib.synthetic.layouts import layout_scene, random_scene, scale_P2
from lib.synthetic.raster import NEAR_M, clip_near, project_faces
from lib.synthetic.render import clip_box, occlusion_state, render
from lib.synthetic.scene import Prop, Scene
from tests.conftest import PATIENCE, PROJECT, descendants, wait_until
from tools.make_synthetic_kitti import main

CaptureFixture = pytest.CaptureFixture[str]
SMALL = (414, 125)
CAR, AWAY = (1.5, 1.6, 4.0), -1.57
P2 = np.array(KITTI_P2)


def make(kind: str, dimensions: tuple[float, ...], location_cam: tuple[float, ...], rotation_y: float) -> Object3d:
    return Object3d(kind, 0.0, 0, 0.0, (0.0, 0.0, 0.0, 0.0), dimensions, location_cam, rotation_y)


def scene_with(*objects: Object3d, size: tuple[int, int] = SMALL) -> Scene:
    """A fixed street with the given objects and no props."""
    return replace(random_scene(0, 0, size), objects=objects, props=())


def pose_of(item: Object3d) -> tuple[object, ...]:
    return item.type, item.dimensions, item.location_cam, item.rotation_y


def run(out: Path, options: str) -> int:
    return main(["--out", str(out), *options.split()])


def split_lists(out: Path) -> dict[str, list[str]]:
    return {name: (out / "ImageSets" / f"{name}.txt").read_text().split() for name in ("train", "val", "test")}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "data"
    assert run(out, "--train 3 --val 2 --test 1 --seed 3 --size 414x125 --workers 1") == 0
    return out


def test_layout_is_complete_and_parses(written: Path) -> None:
    train, val = ["000000", "000001", "000002"], ["000003", "000004"]
    assert split_lists(written) == {"train": train, "val": val, "test": ["000000"]}
    assert (written / "ImageSets" / "trainval.txt").read_text().split() == train + val
    for frame_id in train + val:
        assert cv2.imread(str(written / "training" / "image_2" / f"{frame_id}.png")).shape == (125, 414, 3)
        calibration = Calibration.from_file(written / "training" / "calib" / f"{frame_id}.txt")
        np.testing.assert_allclose(calibration.P2, scale_P2(P2, KITTI_SIZE, SMALL), rtol=1e-9)
        assert read_objects(written / "training" / "label_2" / f"{frame_id}.txt")
    rows = [line.split() for line in (written / "testing" / "calib" / "000000.txt").read_text().splitlines() if line]
    keys = ["P0:", "P1:", "P2:", "P3:", "R0_rect:", "Tr_velo_to_cam:", "Tr_imu_to_velo:"]
    assert [(row[0], len(row) - 1) for row in rows] == list(zip(keys, [12, 12, 12, 12, 9, 12, 12], strict=True))
    assert sorted(contents(written / "testing")) == ["calib/000000.txt", "image_2/000000.png"]
    assert not list(written.rglob(".*"))


def test_files_do_not_depend_on_workers_or_on_the_number_of_frames(written: Path, tmp_path: Path) -> None:
    out, single, other_seed = tmp_path / "other", tmp_path / "single", tmp_path / "seed"
    assert run(out, "--train 3 --val 2 --test 1 --seed 3 --size 414x125 --workers 2") == 0
    assert contents(out) == contents(written)
    assert run(single, "--train 1 --val 0 --seed 3 --size 414x125 --workers 1") == 0
    assert run(other_seed, "--train 1 --val 0 --seed 4 --size 414x125 --workers 1") == 0
    image, testing = Path("training/image_2/000000.png"), Path("testing/image_2/000000.png")
    assert (single / image).read_bytes() == (written / image).read_bytes()
    assert (other_seed / image).read_bytes() != (written / image).read_bytes()
    assert (single / testing).read_bytes() != (single / image).read_bytes()


def test_scenes_stay_the_same_from_version_to_version() -> None:
    """The quickstart's numbers belong to these scenes."""
    scene = random_scene(0, 0)
    assert (len(scene.objects), len(scene.props)) == (16, 47)
    assert pose_of(scene.objects[0]) == ("Car", (1.48, 1.67, 4.3), (-0.77, 1.65, 10.47), -1.57)


@pytest.mark.parametrize("frame", range(4))
def test_labels_agree_with_each_other_and_with_the_image(frame: int) -> None:
    scene = random_scene(11, frame, SMALL)
    rendered = render(scene)
    width, height = scene.size
    assert (rendered.image_bgr.shape, rendered.image_bgr.dtype) == ((height, width, 3), np.uint8)
    assert rendered.objects
    for label in rendered.objects:
        assert Object3d.from_line(label.to_label_line()) == label  # nothing is lost by the two decimals
        x1, y1, x2, y2 = label.bbox_img
        assert 0 <= x1 < x2 <= width - 1 and 0 <= y1 < y2 <= height - 1
        if label.type == "DontCare":
            continue
        (instance,) = [k for k, item in enumerate(scene.objects, 1) if pose_of(item) == pose_of(label)]
        pixels = np.argwhere(rendered.instances == instance)
        assert np.all(pixels >= [y1 - 1.5, x1 - 1.5])
        assert np.all(pixels <= [y2 + 1.5, x2 + 1.5])
        x, y, z = label.location_cam
        error = label.alpha - (label.rotation_y - math.atan2(x, z))
        assert abs(math.remainder(error, 2 * math.pi)) < 0.0051
        assert -math.pi <= label.alpha <= math.pi
        assert y == pytest.approx(scene.ground.y_at(x, z), abs=0.0051)
        if label.corners_cam()[:, 2].min() < 1:
            continue
        # the solid fills its 3D box: the tight box lies inside the projected one and is nearly as large
        corners = scene.calibration.project(label.corners_cam())
        outer, _ = clip_box((*corners.min(axis=0), *corners.max(axis=0)), scene.size)
        assert min(x1 - outer[0], y1 - outer[1], outer[2] - x2, outer[3] - y2) >= -0.02
        assert (x2 - x1) * (y2 - y1) > 0.55 * (outer[2] - outer[0]) * (outer[3] - outer[1])


def test_objects_do_not_overlap_and_are_drawn_by_walls_not_centres() -> None:
    for frame in range(6):
        objects = random_scene(5, frame, SMALL).objects
        for i, a in enumerate(objects):
            assert not any(footprints_overlap(a, b, margin=0.0) for b in objects[i + 1 :])
    car = make("Car", CAR, (0.0, 1.65, 10.0), 0.0)
    assert footprints_overlap(car, replace(car, location_cam=(1.0, 1.65, 11.0)))
    assert not footprints_overlap(car, replace(car, location_cam=(0.0, 1.65, 12.0)), margin=0.2)
    # the lorry's centre is nearer than the car's, yet the car stands between its rear and the camera's side
    lorry = make("Truck", (3.2, 2.5, 12.0), (4.0, 1.65, 14.0), AWAY)
    car = make("Car", CAR, (1.2, 1.65, 16.5), AWAY)
    assert far_to_near([(1, lorry), (2, car)]) == far_to_near([(2, car), (1, lorry)]) == [1, 2]


@pytest.mark.parametrize("kind", OBJECT_TYPES)
def test_every_solid_fills_exactly_its_box_and_faces_outwards(kind: str) -> None:
    sizes = {"Pedestrian": (1.8, 0.6, 0.8), "Person_sitting": (1.3, 0.6, 0.8), "Cyclist": (1.7, 0.6, 1.8)}
    h, w, length = sizes.get(kind, (2.1, 1.9, 5.0))
    solid = build_solid(make(kind, (h, w, length), (0.0, 1.65, 10.0), 0.0), np.random.default_rng(0))
    extent = solid.corners.min(axis=(0, 1)), solid.corners.max(axis=(0, 1))
    np.testing.assert_allclose(extent, [[-length / 2, -h, -w / 2], [length / 2, 0, w / 2]], atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(solid.normals, axis=1), 1, atol=1e-9)
    assert (np.sum(solid.normals * (solid.corners.mean(axis=1) - solid.part_centres), axis=1) >= 0).all()
    assert (solid.colours >= 0).all() and (solid.colours <= 1).all()


def test_every_kitti_type_has_a_solid_and_no_other() -> None:
    assert set(OBJECT_TYPES) == set(KITTI_TYPES) - {"DontCare"}
    with pytest.raises(ValueError, match="Spaceship"):
        build_solid(make("Spaceship", (1, 1, 1), (0, 1, 9), 0.0), np.random.default_rng(0))


def test_faces_are_clipped_at_the_near_plane() -> None:
    across, away = np.array([[-1.0, 1, -0.7], [1, 1, -0.7], [1, 1, 1.3], [-1, 1, 1.3]]), np.array([0.0, 0.0, 5.0])
    clipped, calibration = clip_near(across), Calibration(P2)
    assert len(clipped) == 4 and clipped[:, 2].min() == pytest.approx(NEAR_M)
    polygons = project_faces(np.stack([across + away, across, across - away]), calibration)
    np.testing.assert_allclose(polygons[:2, :4], [calibration.project(face) for face in (across + away, clipped)])
    assert np.isnan(polygons[2]).all()


def test_nearer_object_hides_the_farther_one_and_occlusion_is_measured() -> None:
    near = make("Van", (2.2, 1.9, 5.0), (0.0, 1.65, 10.0), AWAY)
    far = make("Car", CAR, (0.3, 1.65, 22.0), AWAY)
    for objects in ((near, far), (far, near)):
        rendered = render(scene_with(*objects))
        assert [o.type for o in rendered.objects] == ["Van"]  # the car is entirely hidden: no line
        assert set(np.unique(rendered.instances)) == {0, objects.index(near) + 1}
    beside = replace(far, location_cam=(2.2, 1.65, 22.0))
    partly = {o.type: o for o in render(scene_with(beside, near)).objects}
    (alone,) = render(scene_with(beside)).objects
    assert (partly["Van"].occluded, alone.occluded) == (0, 0)
    assert partly["Car"].occluded in (1, 2)
    assert alone.bbox_img == partly["Car"].bbox_img  # the box includes the hidden part


def test_props_hide_what_is_behind_them_and_nothing_else() -> None:
    scene = scene_with(make("Car", CAR, (-4.0, 1.65, 12.0), 1.57))
    whole = np.count_nonzero(render(scene).instances)
    behind, beside = Prop("pole", -5.6, 13.5, 3.0, 0), Prop("pole", -18.0, 9.5, 3.0, 0)
    assert np.count_nonzero(render(replace(scene, props=(behind, beside))).instances) == whole
    before = Prop("pole", -2.8, 8.0, 3.0, 0)
    assert 0.5 * whole < np.count_nonzero(render(replace(scene, props=(before,))).instances) < whole


def test_occlusion_states_and_truncation_as_the_share_of_the_box_outside() -> None:
    assert [occlusion_state(share) for share in (1.0, 0.86, 0.84, 0.51, 0.49, 0.13, 0.11)] == [0, 0, 1, 1, 2, 2, 3]
    assert clip_box((-50.0, 10.0, 50.0, 60.0), (200, 100)) == ((0.0, 10.0, 50.0, 60.0), 0.5)
    assert clip_box((10.0, 10.0, 50.0, 60.0), (200, 100))[1] == 0.0
    (label,) = render(scene_with(make("Car", CAR, (4.5, 1.65, 4.5), AWAY))).objects
    assert 0.2 < label.truncated < 0.95 and label.bbox_img[2] == SMALL[0] - 1


def test_far_cars_are_dontcare_in_random_scenes_only_and_unseen_ones_have_no_line() -> None:
    scene = scene_with(make("Car", CAR, (0.0, 1.65, 75.0), AWAY), size=KITTI_SIZE)
    assert [o.type for o in render(scene).objects] == ["DontCare"]
    assert [o.type for o in render(scene, math.inf).objects] == ["Car"]
    outside, behind = (make("Car", CAR, location, 0.0) for location in ((40.0, 1.65, 10.0), (0.0, 1.65, -10.0)))
    assert render(scene_with(outside, behind)).objects == ()


def test_ground_is_drawn_in_exact_perspective() -> None:
    scene = random_scene(2, 0, SMALL)
    first, x, z, valid = ground_rays(scene.size, scene.calibration, scene.ground)
    rows, columns = np.nonzero(valid)
    x, z = x[rows, columns].astype(np.float64), z[rows, columns].astype(np.float64)
    pixels = scene.calibration.project(np.stack([x, scene.ground.y_at(x, z), z], axis=1))
    np.testing.assert_allclose(pixels, np.stack([columns, rows + first], axis=1), atol=0.02)


def test_colour_does_not_carry_depth() -> None:
    means = []
    for z in (10.0, 20.0):
        scene = scene_with(make("Car", CAR, (0.0, 1.65, z), AWAY))
        rendered = render(replace(scene, look=replace(scene.look, noise=0.0)))
        means.append(rendered.image_bgr[rendered.instances == 1].mean())
    assert means[0] == pytest.approx(means[1], rel=0.12)


def write_layout(root: Path, lines: list[str]) -> Path:
    for name, text in (("label_2", "\n".join(lines)), ("calib", calibration_text(P2, KITTI_SIZE))):
        (root / "training" / name).mkdir(parents=True)
        for frame_id in ("000004", "000007", "000009"):
            (root / "training" / name / f"{frame_id}.txt").write_text(text)
    return root / "training" / "label_2"


def test_layouts_keep_types_sizes_poses_and_ids(tmp_path: Path) -> None:
    lines = [
        "Car 0.00 0 1.55 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 1.62",
        "Person_sitting 0.00 0 0.0 0 0 9 9 1.28 0.55 0.80 -3.00 1.70 9.00 0.40",
        "Tram 0.00 0 0.0 0 0 9 9 3.50 2.50 14.00 -7.00 1.70 40.00 -1.50",
        "Misc 0.00 0 0.0 0 0 9 9 1.90 1.50 3.00 6.00 1.70 20.00 2.40",
        "Truck 0.00 0 0.0 0 0 9 9 3.20 2.60 9.00 9.00 1.70 45.00 1.50",
        "DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10",
    ]
    labels, out, lists = write_layout(tmp_path, lines), tmp_path / "out", tmp_path / "ImageSets"
    options = f"--layouts {labels} --size 414x125 --workers 1"
    assert run(out, f"--train 2 --val 1 {options}") == 0
    assert split_lists(out) == {"train": ["000004", "000007"], "val": ["000009"], "test": []}
    rendered = read_objects(out / "training" / "label_2" / "000007.txt")
    assert [pose_of(o) for o in rendered] == [pose_of(Object3d.from_line(line)) for line in lines[:-1]]
    lists.mkdir()  # beside the label folder: its order is followed
    (lists / "train.txt").write_text("000009\n000004\n")
    (lists / "val.txt").write_text("000007\n")
    assert run(tmp_path / "listed", f"--train 1 --val 1 {options}") == 0
    assert split_lists(tmp_path / "listed") == {"train": ["000009"], "val": ["000007"], "test": []}


@pytest.mark.kitti
def test_real_layout_gives_boxes_like_the_annotators_and_a_real_calibration(real_frames: Path) -> None:
    label, calib = (real_frames / "training" / name / "000010.txt" for name in ("label_2", "calib"))
    assert calibration_text(P2, KITTI_SIZE) == calib.read_text()
    scene = layout_scene(label, calib, seed=0)
    assert scene.size == (1242, 375)
    rendered = render(scene, math.inf)
    real = {o.location_cam: o for o in read_objects(label) if o.type != "DontCare"}
    assert len(rendered.objects) >= 7
    for item in rendered.objects:
        assert pose_of(item) == pose_of(real[item.location_cam])
        # hand-drawn boxes are a few pixels loose
        np.testing.assert_allclose(item.bbox_img, real[item.location_cam].bbox_img, atol=16)


def test_only_an_own_data_set_is_replaced_and_only_with_force(tmp_path: Path, capsys: CaptureFixture) -> None:
    out, foreign = tmp_path / "out", tmp_path / "kitti" / "training" / "precious"
    assert run(out, "--train 2 --val 1 --test 0 --size 207x63 --workers 1") == 0
    (out / "training" / "obj_depth").mkdir()
    before = contents(out)
    capsys.readouterr()
    assert run(out, "--train 1 --val 1") == 2
    assert "not empty" in capsys.readouterr().err
    assert contents(out) == before
    assert run(out, "--train 1 --val 0 --force --test 0 --size 207x63 --workers 1") == 0
    assert [p.name for p in (out / "training" / "image_2").iterdir()] == ["000000.png"]
    assert not (out / "training" / "obj_depth").exists()
    assert (out / "ImageSets" / "val.txt").read_text() == ""
    foreign.parent.mkdir(parents=True)
    foreign.write_text("x")
    assert run(tmp_path / "kitti", "--train 1 --val 1 --force") == 2 and foreign.read_text() == "x"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--train -1 --val 1", "--train"),
        ("--train 1 --val two", "two"),
        ("--train 0 --val 0", "at least one of --train and --val"),
        ("--train 1 --val 1 --size 100", "WIDTHxHEIGHT"),
        ("--train 1 --val 1 --size 8x8", "8x8"),
        ("--train 1 --val 1 --layouts /nowhere/label_2", "/nowhere/label_2"),
    ],
)
def test_bad_arguments_are_named(arguments: str, part: str, tmp_path: Path, capsys: CaptureFixture) -> None:
    try:
        status = run(tmp_path / "out", arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and "Traceback" not in error
    assert part in error.splitlines()[-1] and not (tmp_path / "out").exists()


def test_broken_layout_names_file_and_line(tmp_path: Path, capsys: CaptureFixture) -> None:
    labels = write_layout(tmp_path, ["Car 0.00 0 1.55"])
    assert run(tmp_path / "out", f"--train 1 --val 0 --layouts {labels} --workers 1") == 2
    assert "000004.txt, line 1" in capsys.readouterr().err
    assert run(tmp_path / "more", f"--train 9 --val 0 --layouts {labels}") == 2
    assert "9 train frames wanted" in capsys.readouterr().err


def ignores_ctrl_c(pid: int) -> bool:
    signals = int(re.search(r"SigIgn:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)
    return bool(signals >> signal.SIGINT - 1 & 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_is_one_line_and_leaves_no_lists(tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    command = f"tools/make_synthetic_kitti.py --out {out} --train 5000 --val 1 --size 414x125 --workers {workers}"
    options = {"cwd": PROJECT, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    process = subprocess.Popen([sys.executable, *command.split()], stdout=subprocess.PIPE, **options)
    wait_until(lambda: any((out / "training/label_2").glob("*.txt")), process)
    if workers > 1:  # a worker may still start when the other one has written; beside them is Python's own helper
        wait_until(lambda: len(descendants(process.pid)) == workers + 1, process)
        wait_until(lambda: all(map(ignores_ctrl_c, descendants(process.pid))), process)
    os.killpg(process.pid, signal.SIGINT)  # as from a terminal: to the worker processes too
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output and output.splitlines()[-1] == "ended by Ctrl-C"
    assert not any((out / "ImageSets").iterdir())
