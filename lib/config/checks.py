"""What an impossible value is told: the key, the value, and what would be accepted."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def require(ok: bool, key: str, value: object, accepted: str) -> None:
    """Raises ValueError unless ``ok``."""
    if not ok:
        raise ValueError(f"{key} must be {accepted}, got {value!r}")


def one_of(key: str, value: str, accepted: Sequence[str]) -> None:
    """Raises ValueError, with the name that may have been meant, unless ``value`` is among ``accepted``."""
    if value not in accepted:
        near = difflib.get_close_matches(value, accepted, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key} must be one of {', '.join(accepted)}, got {value!r}{hint}")
