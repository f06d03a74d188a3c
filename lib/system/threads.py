"""Work in threads, ahead of its consumer."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], threads: int = 1, ahead: int = 1
) -> Generator[Result, None, None]:
    """``map`` in order, in threads, for functions that release the interpreter lock (files, OpenCV, numpy, torch).

    ``ahead``: number of results, beyond the next one, that may be in progress or waiting; it bounds the memory.
    ``items`` is iterated in the caller's thread. An error of ``function`` is raised in place of its result. When the
    iteration ends, for any reason, calls in progress are completed and the others are cancelled.
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
