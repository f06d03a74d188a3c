"""Work that goes on while the caller does something else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 1, ahead: int = 1
) -> Generator[Result, None, None]:
    """``map`` in order, in threads, for functions that spend their time outside of Python (files, OpenCV, torch).

    ``ahead``: how many results may be under way or waiting beyond the one that is asked for, which bounds the memory.
    ``items`` are taken in the caller's thread. An error of ``function`` is raised where its result would have come;
    what has been begun is finished when the iteration ends, for whatever reason, and the rest is left.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > ahead:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
