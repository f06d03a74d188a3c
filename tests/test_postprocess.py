import json

import numpy as np
import pytest
import torch

from lib.config import CLASS_NAMES
from lib.ops.feature_map import find_peaks, gather_cells
from lib.postprocess import DecodeSettings, decode, decode_detections
from lib.structures import Calibration, FrameInfo
from tests.conftest import DATA

OFFICIAL = json.loads((DATA / "decode.json").read_text())
SETTINGS = DecodeSettings(CLASS_NAMES, (1280, 384), OFFICIAL["threshold"])


def recorded_outputs():
    """The maps that decode.json describes, drawn in its order, read at their peaks."""
    generator = np.random.default_rng(3)

    def draw(channels, scale=1.0):
        maps = generator.standard_normal((2, channels, 96, 320)).astype(np.float32)
        return torch.from_numpy(maps * np.float32(scale))

    heatmap = draw(3, 1.2) - 2.5
    maps = {"offset_2d": draw(2), "size_2d": draw(2, 8).abs(), "depth": draw(2)}
    maps["depth"][:, 0] -= 2.5
    maps |= {"offset_3d": draw(2), "size_3d": draw(3, 0.3) + 1.8, "heading": draw(24)}
    peaks = find_peaks(heatmap, OFFICIAL["max_objects"])
    return peaks._asdict() | {name: gather_cells(value, peaks.indices) for name, value in maps.items()}


def frames():
    calibration = Calibration(np.array(OFFICIAL["P2"].split(), dtype=float))
    return [FrameInfo(key, tuple(size), calibration) for key, size in OFFICIAL["image_sizes"].items()]


def test_decoded_values_and_lines_are_the_official_ones():
    decoded = decode_detections(recorded_outputs(), frames(), SETTINGS)
    for frame, objects in zip(frames(), decoded, strict=True):
        assert [obj.to_result_line() for obj in objects] == OFFICIAL["lines"][frame.frame_id]
        for obj, expected in zip(objects, OFFICIAL["detections"][frame.frame_id], strict=True):
            values = [obj.alpha, *obj.bbox_img, *obj.dimensions, *obj.location_cam, obj.rotation_y, obj.score]
            assert obj.type == CLASS_NAMES[int(expected[0])]
            assert values == pytest.approx(expected[1:], abs=1e-4)


def test_threshold_is_on_the_heatmap_alone():
    outputs = recorded_outputs()
    threshold = float(outputs["scores"][0].median())
    strict = decode_detections(outputs, frames(), DecodeSettings(CLASS_NAMES, (1280, 384), threshold))
    kept = [int((outputs["scores"][b] >= threshold).sum()) for b in range(2)]
    assert [len(objects) for objects in strict] == kept
    assert 0 < kept[0] < 50
    assert min(obj.score for obj in strict[0]) < threshold


def test_negative_sizes_are_left_out_and_inputs_stay_as_they_are():
    outputs = recorded_outputs()
    outputs["size_3d"][0, 0, 1] = -0.1
    before = {name: value.clone() for name, value in outputs.items()}
    decoded = decode_detections(outputs, frames(), SETTINGS)
    assert [len(objects) for objects in decoded] == [49, 50]
    assert all(torch.equal(before[name], value) for name, value in outputs.items())


def test_mean_sizes_are_added():
    plain = decode_detections(recorded_outputs(), frames(), SETTINGS)[0]
    means = {name: (1.0, 2.0, 3.0) for name in CLASS_NAMES}
    settings = DecodeSettings(CLASS_NAMES, (1280, 384), OFFICIAL["threshold"], means)
    moved = decode_detections(recorded_outputs(), frames(), settings)[0]
    assert np.subtract(moved[0].dimensions, plain[0].dimensions) == pytest.approx([1, 2, 3])
    assert moved[0].location_cam[1] - plain[0].location_cam[1] == pytest.approx(0.5)


@pytest.mark.parametrize("map_to_image", ["official", "exact"])
def test_decoded_objects_project_to_their_peaks(map_to_image):
    """Location, angles and depth scale against Calibration's own functions; angles wrapped."""
    settings = DecodeSettings(CLASS_NAMES, (1280, 384), 0.0, map_to_image=map_to_image)
    outputs = recorded_outputs()
    scaled = [FrameInfo(f.frame_id, f.image_size, f.calibration, 1.5) for f in frames()]
    plain = decode_detections(outputs, frames(), settings)
    for frame, objects, farther in zip(frames(), plain, decode_detections(outputs, scaled, settings), strict=True):
        centers_cam = np.array([[x, y - obj.dimensions[0] / 2, z] for obj in objects for x, y, z in [obj.location_cam]])
        depths = np.array([obj.location_cam[2] for obj in farther])
        assert depths == pytest.approx(1.5 * centers_cam[:, 2])
        columns = frame.calibration.project(centers_cam)[:, 0]
        for obj, column in zip(objects, columns, strict=True):
            assert obj.rotation_y == pytest.approx(frame.calibration.alpha_to_rotation_y(obj.alpha, column), abs=1e-9)
            assert -np.pi <= obj.rotation_y <= np.pi


def test_float32_as_in_an_onnx_file_gives_the_same_values():
    outputs = recorded_outputs()
    P2 = torch.from_numpy(np.stack([frame.calibration.P2 for frame in frames()]))
    image_size = torch.tensor([frame.image_size for frame in frames()], dtype=torch.float64)
    exact = decode(outputs, P2, image_size, SETTINGS)
    single = decode(outputs, P2.float(), image_size.float(), SETTINGS)
    assert all(single[name].dtype in (torch.float32, torch.int64) for name in single)
    assert all(torch.allclose(single[name].double(), exact[name].double(), rtol=1e-4, atol=1e-4) for name in exact)
