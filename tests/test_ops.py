import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.ops.affine import resolution_for, source_index, window_to_input
from lib.ops.angles import BIN_SIZE, angle_to_bin, wrap_angle
from lib.ops.feature_map import find_peaks, gather_cells, gather_windows
from lib.ops.gaussian import draw_gaussian, gaussian_radius
from lib.system.threads import map_ahead


@pytest.mark.parametrize("angle", np.linspace(-9, 9, 181))
def test_wrapped_angle_is_the_same_direction_inside_half_a_turn(angle):
    wrapped = wrap_angle(angle)
    assert -math.pi <= wrapped <= math.pi
    assert math.cos(wrapped - angle) == pytest.approx(1, abs=1e-12)


def test_heading_bins_by_hand():
    assert angle_to_bin(0.0) == (0, pytest.approx(0))
    assert angle_to_bin(math.pi / 6) == (1, pytest.approx(0))
    assert angle_to_bin(-0.1) == (0, pytest.approx(-0.1))
    assert angle_to_bin(-math.pi / 2) == (9, pytest.approx(0))


def test_heading_bins_contain_their_angle():
    for angle in np.random.default_rng(0).uniform(-math.pi, math.pi, 2000):
        index, residual = angle_to_bin(angle)
        assert 0 <= index < 12
        assert abs(residual) <= BIN_SIZE / 2 + 1e-9
        assert math.cos(index * BIN_SIZE + residual - angle) == pytest.approx(1, abs=1e-12)


def test_window_fills_the_input():
    to_input = window_to_input((600, 180), 1000, (1280, 384))
    points = to_input.apply(np.array([[100, 180], [1100, 180], [600, 180]]))
    assert points == pytest.approx(np.array([[0, 192], [1280, 192], [640, 192]]))


def test_source_index_inverts_an_integer_upscaling():
    index, inside = source_index(10, 2.0, 0.0, 4)
    assert index[:8].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert inside.tolist() == [True] * 8 + [False] * 2


def test_gaussian_radius_by_hand_and_its_scaling():
    # 10 x 10, overlap 0.7; the third case is the smallest: 2.8 r^2 - (-28) .. -> (-28 + sqrt(784 + 336)) / 2
    assert gaussian_radius(10, 10) == pytest.approx((-28 + math.sqrt(1120)) / 2)
    for width, height in ((10, 10), (43.4, 12.1), (100, 30)):
        assert gaussian_radius(2 * width, 2 * height) == pytest.approx(2 * gaussian_radius(width, height))
        assert gaussian_radius(width, height) == gaussian_radius(height, width)


def test_gaussians_join_by_maximum_and_stay_in_the_map():
    heatmap = np.zeros((8, 12), np.float32)
    draw_gaussian(heatmap, (0, 0), 3)
    draw_gaussian(heatmap, (2, 0), 3)
    assert heatmap[0, 0] == heatmap[0, 2] == 1
    sigma = 7 / 6
    assert heatmap[0, 1] == pytest.approx(math.exp(-1 / (2 * sigma**2)))
    assert heatmap[4:].max() == 0


def test_peaks_are_the_local_maxima_of_all_classes():
    logits = torch.full((2, 3, 6, 7), -9.0)
    logits[0, 1, 2, 3] = 2.0
    logits[0, 1, 2, 4] = 1.9  # beside a higher one: suppressed
    logits[0, 2, 5, 6] = 1.0
    logits[1, 0, 0, 0] = 0.5
    peaks = find_peaks(logits, 2)
    assert peaks.indices.tolist()[0] == [2 * 7 + 3, 5 * 7 + 6]
    assert peaks.classes.tolist()[0] == [1, 2]
    assert peaks.scores[0].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 1 / (1 + math.exp(-1))])
    assert peaks.indices[1, 0] == 0


def test_more_peaks_than_cells():
    assert find_peaks(torch.zeros(1, 1, 2, 2), 50).scores.shape == (1, 4)


@pytest.mark.parametrize("size", [3, 5])
def test_windows_equal_unfold(size):
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 6, 9)
    indices = torch.randint(0, 54, (2, 20))
    unfolded = F.unfold(maps, size, padding=size // 2).reshape(2, 4, size * size, 54)
    expected = torch.stack([unfolded[b][..., indices[b]] for b in range(2)]).permute(0, 3, 1, 2)
    assert torch.equal(gather_windows(maps, indices, size), expected)
    assert torch.equal(gather_cells(maps, indices), expected[..., size * size // 2])


KITTI_SIZES = ((1242, 375), (1241, 376), (1224, 370), (1238, 374), (1226, 370))


@pytest.mark.parametrize("configured", [(1280, 384), (320, 96)])
def test_kittis_images_keep_the_configured_resolution(configured):
    assert {resolution_for(size, configured) for size in KITTI_SIZES} == {configured}


def test_other_images_are_shown_whole_at_the_configured_width():
    assert resolution_for((1920, 1080), (1280, 384)) == (1280, 736)
    assert resolution_for((1280, 736), (1280, 384)) == (1280, 736)
    for width in range(60, 4000, 171):
        for height in range(60, 4000, 233):
            across, down = resolution_for((width, height), (1280, 384))
            scaled = 1280 * height / width
            if (across, down) != (1280, 384):
                assert across == 1280 and down % 32 == 0 and scaled <= down < scaled + 32
            else:
                assert scaled <= 384 / 0.97


def test_work_ahead_keeps_the_order_and_is_bounded():
    begun, taken = [], []

    def square(number):
        begun.append(number)
        return number * number

    def numbers():
        for number in range(50):
            taken.append(number)
            yield number

    for done, result in enumerate(map_ahead(square, numbers(), threads=3, ahead=4)):
        assert result == done**2 and len(taken) - done <= 5
    assert sorted(begun) == list(range(50))
    assert list(map_ahead(square, [])) == []


def test_work_ahead_raises_in_its_place_and_leaves_the_rest():
    begun = []

    def work(number):
        begun.append(number)
        if number == 3:
            raise ValueError("three")
        return number

    results = map_ahead(work, itertools.count(), threads=1, ahead=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert max(begun) <= 5
    results = map_ahead(work, iter([7, 8, 9, 10]), threads=1, ahead=1)
    assert next(results) == 7
    results.close()
    assert 10 not in begun
