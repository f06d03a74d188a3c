"""Mean, standard deviation, and Student's t interval of a few repeated runs."""

import math
import statistics
from collections.abc import Iterable
from typing import NamedTuple

from scipy import stats

LEVEL = 0.95  # confidence level of every interval


class Sample(NamedTuple):
    """A few values, of which NaN means that there is no value, and the interval of their mean."""

    n: int  # values that are not NaN
    left_out: int  # values that are NaN
    mean: float  # NaN without values
    deviation: float  # sample standard deviation (over n - 1); this and the interval are NaN for fewer than two values
    low: float
    high: float


def summarize(values: Iterable[float]) -> Sample:
    """Mean with its t interval at ``LEVEL``. NaN is left out and counted; equal values give a width of exactly 0."""
    values = list(values)
    used = [value for value in values if not math.isnan(value)]
    n, left_out = len(used), len(values) - len(used)
    mean = statistics.mean(used) if used else math.nan
    if n < 2:
        return Sample(n, left_out, mean, math.nan, math.nan, math.nan)
    deviation = statistics.stdev(used)  # exact, unlike numpy's: equal values have no deviation
    margin = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * deviation / math.sqrt(n)
    return Sample(n, left_out, mean, deviation, mean - margin, mean + margin)
