from dataclasses import replace

import numpy as np
import pytest

from lib.structures import Calibration, Object3d, read_objects, scan_objects
from tests.conftest import CALIB, LABELS

CAR = LABELS["000000"][0]


@pytest.mark.parametrize("line", [line for lines in LABELS.values() for line in lines])
def test_label_lines_round_trip(line):
    assert Object3d.from_line(line).to_label_line() == line


@pytest.mark.kitti
def test_all_real_labels_round_trip_and_calibrations_parse(real_labels):
    lines = 0
    for path in sorted((real_labels / "label_2").glob("*.txt")):
        text = path.read_text()
        objects = read_objects(path)
        lines += len(objects)
        assert "".join(obj.to_label_line() + "\n" for obj in objects).split() == text.split()
        for obj in objects:
            result = Object3d.from_line(replace(obj, score=0.5).to_result_line())
            assert result.location_cam == pytest.approx(obj.location_cam, abs=0.005)
        Calibration.from_file(real_labels / "calib" / path.name)
    assert lines == 51865


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Car 0.00 0 1.55", "got 4"),
        (CAR.rsplit(" ", 1)[0], "got 14"),
        (CAR + " 0.5 7", "got 17"),
        (CAR.replace("9.44", "near"), "z must be a finite number, got 'near'"),
        (CAR.replace("0.00 0 ", "0.00 0.5 "), "occluded must be a whole number"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, said):
    path = tmp_path / "000007.txt"
    path.write_text(CAR + "\n\n" + line + "\n")
    with pytest.raises(ValueError, match=r"000007\.txt, line 3") as error:
        read_objects(path)
    assert said in str(error.value)
    (first, car), (third, problem) = scan_objects(path)
    assert (first, car, third) == (1, Object3d.from_line(CAR), 3) and said in str(problem)


@pytest.mark.parametrize(
    ("change", "difficulty"),
    [
        ({}, "Easy"),
        ({"bbox_img": (0, 0, 9, 39)}, "Easy"),  # height counts y2 - y1 + 1
        ({"bbox_img": (0, 0, 9, 38.9)}, "Moderate"),
        ({"occluded": 1}, "Moderate"),
        ({"truncated": 0.5}, "Hard"),
        ({"bbox_img": (0, 0, 9, 23.9)}, "UnKnown"),
        ({"occluded": 3}, "UnKnown"),
        ({"truncated": -1}, "DontCare"),
    ],
)
def test_difficulty(change, difficulty):
    assert replace(Object3d.from_line(CAR), **change).difficulty == difficulty


def test_corners_by_hand():
    car = replace(Object3d.from_line(CAR), dimensions=(2, 1, 4), location_cam=(10, 1, 20), rotation_y=0)
    corners = car.corners_cam()
    assert corners[0] == pytest.approx([12, 1, 19.5])  # heading along +x: front right is nearer to the camera
    assert corners[5] == pytest.approx([12, -1, 20.5])
    turned = replace(car, rotation_y=-np.pi / 2).corners_cam()  # heading away, +z
    assert turned[:2, 2] == pytest.approx([22, 22])
    assert turned[0, 0] == pytest.approx(10.5)


def test_calibration_projects_and_back_projects(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("P0: 1 2 3\n" + CALIB)
    calibration = Calibration.from_file(path)
    points = np.random.default_rng(0).uniform((-20, -2, 3), (20, 3, 70), (50, 3))
    for point, (u, v) in zip(points, calibration.project(points), strict=True):
        assert calibration.back_project(u, v, point[2]) == pytest.approx(point)
    u = calibration.project(np.array([[0.0, 0, 10]]))[0, 0]
    assert calibration.alpha_to_rotation_y(calibration.rotation_y_to_alpha(1.2, u), u) == pytest.approx(1.2)
    with pytest.raises(ValueError, match="read-only"):
        calibration.P2[0, 0] = 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("P0: 1 2\nP1: 3", "no line 'P2"),
        ("P2: 1 2 3", "line 1: P2 must have 12 numbers"),
        (CALIB.replace("172.854", "x"), "P2 must have 12 numbers"),
        (CALIB.replace("721.5377", "0"), "positive focal lengths"),
    ],
)
def test_bad_calibrations_are_named(tmp_path, text, said):
    path = tmp_path / "000003.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"000003\.txt") as error:
        Calibration.from_file(path)
    assert said in str(error.value)
