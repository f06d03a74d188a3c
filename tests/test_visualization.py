"""Boxes are drawn where the calibration projects them, also at the near plane; inputs stay unchanged."""

import io
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lib.datasets import KITTI
from lib.pipeline.images import choose_evenly_spaced, choose_min_score
from lib.structures import Calibration, Object3d, read_objects
from lib.visualization.birds_eye import birds_eye_pixels, draw_birds_eye
from lib.visualization.drawing import clip_segment, draw_boxes_3d, draw_comparison, draw_detections
from lib.visualization.overlay import draw_heatmap, draw_object_depth
from lib.visualization.style import DETECTION_STYLE, LABEL_STYLE, class_colour, encode_image
from lib.visualization.video import open_video

CALIBRATION = Calibration(
    np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.002745884]])
)
CAR = Object3d("Car", 0.0, 0, 0.0, (500.0, 150.0, 600.0, 260.0), (1.5, 1.6, 4.0), (-1.0, 1.65, 14.0), 1.2, 0.87)
FRONT = [0, 1, 5, 4]


@pytest.fixture
def grey() -> np.ndarray:
    return np.full((375, 1242, 3), 90, np.uint8)


def shows(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Pixels of about this colour; antialiased thin lines never reach it exactly."""
    return np.abs(image.astype(int) - colour).max(axis=-1) < 45


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return (before.astype(int) != after).any(axis=2)


@pytest.mark.parametrize("turn", [-2.4, -1.2, 0.4, 1.2])
def test_front_face_is_tinted_where_the_calibration_projects_it(grey: np.ndarray, turn: float) -> None:
    car = replace(CAR, rotation_y=turn)
    drawn = draw_boxes_3d(grey, [replace(car, score=None)], CALIBRATION)
    corners = car.corners_cam()
    marks = changed(grey, drawn)
    for u, v in CALIBRATION.project(corners).round().astype(int):
        assert marks[v - 1 : v + 2, u - 1 : u + 2].any()
    # a point of the face that no edge and no diagonal crosses: a quarter of the way up in the middle column
    u, v = CALIBRATION.project(([0.375, 0.375, 0.125, 0.125] @ corners[FRONT])[None])[0].round().astype(int)
    assert marks[v - 1 : v + 2, u - 1 : u + 2].all() and marks.mean() < 0.05
    # class, distance and score
    written = np.nonzero(changed(drawn, draw_boxes_3d(grey, [car], CALIBRATION)))[0]
    assert len(written) > 50 and written.max() <= CALIBRATION.project(corners)[:, 1].min() + 1
    edges = changed(grey, draw_boxes_3d(grey, [car], CALIBRATION, details=False))
    assert not edges[v, u] and edges.sum() < marks.sum()
    towards_front = drawn[v, u].astype(int) - grey[v, u]
    assert np.sign(towards_front).tolist() == np.sign(np.array(class_colour("Car")) - 90).tolist()


@pytest.mark.parametrize("z", [1.0, 0.3, -0.5, -1.7, -9.0])
def test_boxes_at_and_behind_the_camera_do_not_crash(grey: np.ndarray, z: float) -> None:
    item = replace(CAR, location_cam=(0.8, 1.65, z), rotation_y=-1.57)
    drawn = draw_boxes_3d(grey, [item], CALIBRATION)
    assert drawn.shape == grey.shape
    assert changed(grey, drawn).any() == (z > -1)  # of a box farther back, the visible part lies below the image


def test_segment_is_cut_at_the_near_plane() -> None:
    part = clip_segment(np.array([0.0, 0.0, -1.0]), np.array([2.0, 0.0, 1.0]), near=0.5)
    assert part is not None
    np.testing.assert_allclose(part, [[1.5, 0.0, 0.5], [2.0, 0.0, 1.0]])
    assert clip_segment(np.array([0.0, 0.0, -1.0]), np.array([2.0, 0.0, 0.4]), near=0.5) is None


def test_inputs_stay_as_they_are(grey: np.ndarray) -> None:
    original = grey.copy()
    grey.setflags(write=False)
    boxes = draw_boxes_3d(grey, [CAR], CALIBRATION)
    for drawn in (boxes, draw_comparison(grey, CALIBRATION, [CAR], [CAR]), draw_detections(grey, CALIBRATION, [CAR])):
        assert drawn.dtype == np.uint8 and drawn.flags.writeable and not np.shares_memory(drawn, grey)
    np.testing.assert_array_equal(grey, original)
    ignored = replace(CAR, type="DontCare", bbox_img=(700.0, 150.0, 800.0, 200.0), location_cam=(-1000.0,) * 3)
    empty = draw_boxes_3d(grey, [ignored], CALIBRATION)
    assert empty is not grey and not changed(grey, empty).any()


@pytest.mark.parametrize("shape", [(375, 1242), (128, 448)])
def test_comparison_shows_both_groups_in_both_views(shape: tuple[int, int]) -> None:
    height, width = shape
    image = np.full((height, width, 3), 90, np.uint8)
    scale = np.array([[width / 1242], [height / 375], [1.0]])
    calibration = Calibration(CALIBRATION.P2 * scale)
    detection = replace(CAR, type="Pedestrian", location_cam=(2.0, 1.65, 20.0))
    panel = draw_comparison(image, calibration, [CAR], [detection])
    factor = panel.shape[0] // height
    assert panel.shape == (factor * height, factor * (width + height), 3)
    halves = panel[:, : factor * width], panel[:, factor * width :]
    for half in halves:
        for name in ("Car", "Pedestrian"):
            assert shows(half, class_colour(name)).sum() > 10
    u, v = birds_eye_pixels(np.array([CAR.location_cam]), (factor * height, factor * height))[0]
    near = halves[1][int(v) - 6 : int(v) + 7, int(u) - 6 : int(u) + 7]
    assert shows(near, class_colour("Car")).any()
    assert not shows(draw_comparison(image, calibration, None, [detection]), class_colour("Car")).any()  # no labels


def test_as_many_detections_are_drawn_as_there_are_labels(tiny_kitti: Path) -> None:
    dataset = KITTI(tiny_kitti, "val")
    objects = [obj for _, found in map(dataset.annotation, range(len(dataset))) for obj in found]
    cars = sum(obj.type == "Car" and obj.difficulty != "UnKnown" for obj in objects)
    assert cars > 1
    for scale, expected in ((1.0, 0.2), (0.1, 0.1 * (1 - 0.01 * (cars - 1)))):
        scores = (scale * (1 - 0.01 * k) for k in range(1000))
        found = {name: [replace(CAR, score=next(scores)) for _ in range(5)] for name in dataset.frame_ids}
        assert choose_min_score(dataset, found) == pytest.approx(expected)
    assert choose_min_score(dataset, {dataset.frame_ids[0]: []}) == 0.2


def test_labels_are_dashed_and_detections_solid(grey: np.ndarray) -> None:
    box = CAR.corners_cam()[[0, 4]]  # a vertical edge
    (u, top), (_, bottom) = sorted(CALIBRATION.project(box).round().astype(int).tolist(), key=lambda end: end[1])
    shares = []
    for style in (LABEL_STYLE, DETECTION_STYLE):
        drawn = draw_boxes_3d(grey, [CAR], CALIBRATION, style, details=False)
        shares.append(changed(grey, drawn)[top : bottom + 1, u - 1 : u + 2].any(axis=1).mean())
    assert 0.3 < shares[0] < 0.8 and shares[1] == 1


def test_a_class_has_one_colour_and_the_main_ones_differ() -> None:
    assert len({class_colour(name) for name in ("Car", "Pedestrian", "Cyclist", "Van", "Truck", "Tram")}) == 6
    assert class_colour("Forklift") == class_colour("Forklift")


def test_files_have_the_colours_of_rgb_arrays(tmp_path: Path) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    with Image.open(io.BytesIO(encode_image(red))) as image:
        assert image.convert("RGB").getpixel((4, 4)) == (255, 0, 0)
    with open_video(tmp_path / "x.mp4", 10) as append:
        append(np.repeat(np.repeat(red, 8, 0), 8, 1))
    read, frame_bgr = cv2.VideoCapture(str(tmp_path / "x.mp4")).read()
    assert read and frame_bgr[32, 32, 2] > 200 and frame_bgr[32, 32, 0] < 60


@pytest.mark.parametrize(("frames", "count", "expected"), [
    (7, 3, "ADG"), (7, 1, "A"), (7, 0, ""), (3, 4, "ABC"), (10, 4, "ADGJ"),
])  # fmt: skip
def test_evenly_spaced_frames(frames: int, count: int, expected: str) -> None:
    assert "".join(choose_evenly_spaced("ABCDEFGHIJ"[:frames], count)) == expected


def test_images_are_encoded_and_shrunk(grey: np.ndarray) -> None:
    for suffix, width, size in ((".png", None, (375, 1242)), (".jpg", 621, (188, 621)), (".jpg", 5000, (375, 1242))):
        content = np.frombuffer(encode_image(grey, suffix, width), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_COLOR)
        assert image.shape[:2] == size and np.abs(image.astype(int) - 90).max() <= 2
        assert bytes(content[:3]) == (b"\x89PN" if suffix == ".png" else b"\xff\xd8\xff")


@pytest.mark.parametrize("shape", [(96, 320), (375, 1242), (1080, 1920), (1920, 1080)])
def test_detections_are_as_easy_to_see_at_any_size(shape: tuple[int, int]) -> None:
    height, width = shape
    image = np.full((height, width, 3), 90, np.uint8)
    calibration = Calibration(CALIBRATION.P2 * np.array([[width / 1242], [width / 1242], [1.0]]))
    panel = draw_detections(image, calibration, [replace(CAR, location_cam=(1.0, 1.65, 14.0))])
    factor = panel.shape[0] // height
    assert panel.shape == (factor * height, factor * (width + min(width, height)), 3)
    left, right = panel[:, : factor * width], panel[:, factor * width :]
    share = shows(left, class_colour("Car")).mean()
    assert 0.0005 < share < 0.02
    assert shows(right, class_colour("Car")).any()
    for range_m in (70.0, 150.0):
        farther = draw_detections(image, calibration, [replace(CAR, location_cam=(1.0, 1.65, 90.0))], range_m)
        assert shows(farther[:, factor * width :], class_colour("Car")).any() == (range_m == 150)


def test_birds_eye_scale_heading_and_field_of_view() -> None:
    assert birds_eye_pixels(np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 35.0]]), (400, 400), 70.0).tolist() == [
        [200.0, 399.0],
        [200.0 + 10 * 400 / 70, 399 - 200.0],
    ]
    empty = draw_birds_eye([], (300, 200))
    assert empty.shape == (200, 300, 3)
    assert changed(empty, draw_birds_eye([], (300, 200), CALIBRATION)).any()
    ahead = replace(CAR, location_cam=(0.0, 1.65, 30.0), rotation_y=-np.pi / 2)
    towards = replace(ahead, rotation_y=np.pi / 2)
    drawn = [draw_birds_eye([(objects, DETECTION_STYLE)], (700, 700)) for objects in ([], [ahead], [towards])]
    rows = [np.nonzero(changed(drawn[0], view))[0] for view in drawn[1:]]
    assert rows[0].min() < rows[1].min()  # the heading line of the car that drives away points up
    assert rows[0].max() < rows[1].max()
    beyond = replace(ahead, location_cam=(0.0, 1.65, 500.0))
    assert not changed(empty, draw_birds_eye([([beyond], DETECTION_STYLE)], (300, 200))).any()


def test_heatmap_is_drawn_where_its_cells_are(grey: np.ndarray) -> None:
    heatmap = np.zeros((2, 96, 320), np.float32)
    heatmap[0, 50, 100], heatmap[1, 20, 300] = 1.0, 0.5
    scale = 1242 / 320
    drawn = draw_heatmap(grey, heatmap, ("Car", "Cyclist"), np.array([[scale, 0, 0], [0, scale, 1.5]]))
    for x, y, share in ((100, 50, 1.0), (300, 20, 0.5)):
        u, v = int((x + 0.5) * scale), int((y + 0.5) * scale + 1.5)  # the cell's middle
        colour, background = np.array(class_colour("Car" if share == 1 else "Cyclist")), 0.4 * 90
        assert np.abs(drawn[v, u] - (background + share**0.7 * (colour - background))).max() < 25
    names = np.zeros((375, 1242), bool)
    names[330:, :200] = True
    marks = changed(draw_heatmap(grey, 0 * heatmap, ("Car", "Cyclist"), np.eye(3)[:2]), drawn) & ~names
    assert 4 < marks.sum() < 2.2 * (2 * scale) ** 2  # a cell spreads to the middles of its neighbours
    with pytest.raises(ValueError, match=r"expected a heatmap \(1, h, w\)"):
        draw_heatmap(grey, heatmap, ("Car",), np.eye(3)[:2])


def test_object_depth_is_drawn_where_there_are_objects(grey: np.ndarray) -> None:
    depth_map = np.zeros((375, 1242), np.float32)
    depth_map[100:200, 300:400], depth_map[100:200, 600:700] = 5.0, 40.0
    drawn = draw_object_depth(grey, depth_map)
    marks = changed(grey, drawn)[:320]  # the scale is below
    assert np.array_equal(marks, depth_map[:320] > 0)
    near, far = (drawn[150, x].astype(int).sum() for x in (350, 650))
    assert near > far + 60  # bright is near in grey print too
    with pytest.raises(ValueError, match="the depth map is"):
        draw_object_depth(grey, depth_map[:-1])
    assert draw_object_depth(np.zeros((10, 20, 3), np.uint8), np.ones((10, 20))).shape == (10, 20, 3)


@pytest.mark.kitti
def test_boxes_of_real_frames_are_drawn_where_the_objects_are(real_frames: Path) -> None:
    """Corners to a pixel; the box around the drawing is about the labelled 2D box."""
    gaps = []
    for label in sorted((real_frames / "training/label_2").glob("*.txt")):
        calibration = Calibration.from_file(real_frames / "training/calib" / label.name)
        for item in read_objects(label):
            if item.type == "DontCare" or item.truncated > 0 or item.location_cam[2] < 5:
                continue
            blank = np.zeros((376, 1242, 3), np.uint8)
            thin = replace(DETECTION_STYLE, thickness=1)
            marks = changed(blank, draw_boxes_3d(blank, [item], calibration, thin, details=False))
            corners = calibration.project(item.corners_cam()).round().astype(int)
            for u, v in corners:
                assert marks[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2].any(), (label.name, item)
            v, u = np.nonzero(marks)
            gaps.append(np.abs(np.array([u.min(), v.min(), u.max(), v.max()]) - item.bbox_img).max())
            assert abs(u.min() - corners[:, 0].min()) <= 2 and abs(u.max() - corners[:, 0].max()) <= 2
    assert len(gaps) >= 15 and np.median(gaps) < 4


def test_bad_images_are_refused(grey: np.ndarray) -> None:
    for bad in (grey.astype(np.float32), grey[..., 0]):
        with pytest.raises(ValueError, match="uint8"):
            draw_boxes_3d(bad, [CAR], CALIBRATION)
    with pytest.raises(ValueError, match="positive"):
        draw_birds_eye([([CAR], LABEL_STYLE)], (0, 10))
