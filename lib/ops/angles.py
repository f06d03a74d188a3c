"""Angles in radians: wrapping, and the 12-bin encoding of MonoDLE's heading head."""

import math

NUM_HEADING_BINS = 12
BIN_SIZE = 2 * math.pi / NUM_HEADING_BINS


def wrap_angle(angle: float) -> float:
    """``angle`` [rad] shifted by full turns into [-pi, pi]. Angles already inside are returned unchanged."""
    if -math.pi <= angle <= math.pi:
        return angle
    return (angle + math.pi) % (2 * math.pi) - math.pi


def angle_to_bin(angle: float) -> tuple[int, float]:
    """Heading as (bin, residual [rad]): bins of pi/6 centred at 0, pi/6, 2 pi/6, .. (MonoDLE, after Frustum PointNet).

    The residual lies in [-pi/12, pi/12) and is measured from the bin's centre. ``lib/postprocess.py`` has the inverse.
    """
    shifted = (angle % (2 * math.pi) + BIN_SIZE / 2) % (2 * math.pi)
    index = min(int(shifted / BIN_SIZE), NUM_HEADING_BINS - 1)
    return index, shifted - (index * BIN_SIZE + BIN_SIZE / 2)
