import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.ops.affine import source_index, window_to_input
from lib.ops.angles import BIN_SIZE, angle_to_bin, bin_to_angle, wrap_angle
from lib.ops.feature_map import find_peaks, gather_cells, gather_windows
from lib.ops.gaussian import draw_gaussian, gaussian_radius


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


def test_heading_bins_round_trip():
    for angle in np.random.default_rng(0).uniform(-math.pi, math.pi, 2000):
        index, residual = angle_to_bin(angle)
        assert 0 <= index < 12
        assert abs(residual) <= BIN_SIZE / 2 + 1e-9
        assert math.cos(bin_to_angle(index, residual) - angle) == pytest.approx(1, abs=1e-12)


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
