"""Means, standard deviations, and Student's t intervals of a few repeated runs. math only.

Source of the formulas: NIST Digital Library of Mathematical Functions, 8.17 (incomplete beta functions); Student's
distribution in terms of them is 26.5.27 and 26.7.1 of Abramowitz & Stegun.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LEVEL = 0.95
"""of every interval"""
_TINY = 1e-300


@dataclass(frozen=True)
class Sample:
    """What a few values say about their mean. NaN is a figure that does not exist."""

    n: int
    """values that were used"""
    left_out: int
    """values that were NaN"""
    mean: float
    """NaN without values"""
    deviation: float
    """sample standard deviation (over n - 1); NaN for fewer than two values"""
    margin: float
    """the interval of the mean is mean - margin .. mean + margin; NaN for fewer than two values"""

    @property
    def low(self) -> float:
        return self.mean - self.margin

    @property
    def high(self) -> float:
        return self.mean + self.margin


def summarize(values: Iterable[float]) -> Sample:
    """Mean with its t interval at ``LEVEL``. NaN is left out and counted; equal values give a width of exactly 0."""
    values = list(values)
    used = [value for value in values if not math.isnan(value)]
    n, left_out = len(used), len(values) - len(used)
    if n == 0:
        return Sample(0, left_out, math.nan, math.nan, math.nan)
    # relative to the first value, else rounding of the mean would keep equal values from having no deviation at all
    shifted = [value - used[0] for value in used]
    shift = math.fsum(shifted) / n
    mean = used[0] + shift
    if n == 1:
        return Sample(n, left_out, mean, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((value - shift) ** 2 for value in shifted) / (n - 1))
    margin = student_t_quantile((1 + LEVEL) / 2, n - 1) * deviation / math.sqrt(n)
    return Sample(n, left_out, mean, deviation, margin)


def paired_differences(base: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """``other`` minus ``base``, pair by pair, such as by seed: of the keys that both have. NaN in either stays NaN."""
    return {key: other[key] - base[key] for key in base if key in other}


@functools.lru_cache(maxsize=1000)
def student_t_quantile(probability: float, degrees: int) -> float:
    """The t that a variable with Student's distribution stays below with this probability.

    Raises ValueError unless 0 < probability < 1 and degrees >= 1.
    """
    if not 0 < probability < 1:
        raise ValueError(f"probability must be in (0, 1), got {probability!r}")
    if degrees < 1:
        raise ValueError(f"degrees of freedom must be >= 1, got {degrees!r}")
    if probability < 0.5:
        return -student_t_quantile(1 - probability, degrees)
    tail = 1 - probability
    low, high = 0.0, 1.0
    while student_t_tail(high, degrees) > tail:
        low, high = high, 2 * high
    while True:  # until low and high are neighbours among the floats
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if student_t_tail(middle, degrees) > tail:
            low = middle
        else:
            high = middle


def student_t_tail(t: float, degrees: int) -> float:
    """Probability of a value above ``t`` >= 0."""
    if t * t < degrees:  # degrees / (degrees + t * t) would be close to 1, and hold little of a small t
        return (1 - regularized_beta(t * t / (degrees + t * t), 0.5, degrees / 2)) / 2
    return regularized_beta(degrees / (degrees + t * t), degrees / 2, 0.5) / 2


def regularized_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), the incomplete beta function divided by the complete one; 0 <= x <= 1, a and b > 0."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly: I_x(a, b) = 1 - I_1-x(b, a)
        return 1 - _beta_fraction(1 - x, b, a)
    return _beta_fraction(x, a, b)


def _beta_fraction(x: float, a: float, b: float) -> float:
    """I_x(a, b) by the continued fraction DLMF 8.17.22, 1 / (1 + d1 / (1 + d2 / ..)), with Lentz's method."""
    log_scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    numerator, denominator, value = 1.0, 0.0, 1.0
    for k in range(1, 10_000):
        m = k // 2
        if k % 2 == 0:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / (1 + d * denominator or _TINY)
        numerator = 1 + d / numerator or _TINY
        step = numerator * denominator
        value *= step
        if abs(step - 1) < 1e-15:
            break
    return math.exp(log_scale) / (a * value)
