"""The decorator of the evaluator's compiled functions."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """``numba.njit`` with a cache on disk whose file names contain the name of this package.

    The cache stores module names, so a copy of the folder under another name must not load the files of the original.
    Without a folder that can be written (a read-only container) the function is compiled in each process.
    """
    function.__qualname__ = f"{__package__}.{function.__qualname__}"
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # numba finds no place for its cache
        return numba.njit(function)
