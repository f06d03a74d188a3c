"""The decorator of the evaluator's compiled functions."""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import numba
from numba.core.caching import FunctionCache

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Any:
    """``numba.njit`` without the interpreter lock, and with a cache whose file names contain the name of this package.

    The cache stores module names, so a copy of the folder under another name must not load the files of the original.
    Without a folder that can be written (a read-only container) the function is compiled in each process.
    """
    function.__qualname__ = f"{__package__}.{function.__qualname__}"
    dispatcher: Any = numba.njit(nogil=True)(function)
    with contextlib.suppress(RuntimeError):  # numba finds no place for its cache
        dispatcher._cache = _Cache(function)  # as enable_caching() does
    return dispatcher


class _Cache(FunctionCache):
    """numba's own, whose errors end every evaluation once one of its files is cut off, or the disk is full."""

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception as error:  # the unpickler raises errors of many kinds
            logger.warning("%s: a damaged file of numba's cache (%r); compiling anew", self.cache_path, error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            super().save_overload(*args)
        except OSError as error:
            logger.debug("%s: nothing added to numba's cache: %r", self.cache_path, error)
