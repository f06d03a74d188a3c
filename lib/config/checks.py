"""Checks of single values. The error names the key, the value and what is accepted."""

import difflib
import re
import reprlib
from collections.abc import Sequence

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20


def shown(value: object) -> str:
    """``repr`` for messages: long texts, lists and mappings are shortened, which YAML aliases can make huge."""
    return _SHORT.repr(value)


def require(ok: bool, key: str, value: object, accepted: str) -> None:
    """Raise ValueError unless ``ok``; ``accepted`` describes the values that are allowed."""
    if not ok:
        raise ValueError(f"{key} must be {accepted}, got {shown(value)}")


def require_one_of(key: str, value: str, accepted: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``accepted``; the error suggests the most similar one."""
    if value not in accepted:
        near = difflib.get_close_matches(value, accepted, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{key} must be one of {', '.join(accepted)}, got {shown(value)}{hint}")


def require_split(key: str, value: str) -> None:
    """Raise ValueError unless ``value`` can be the name of a list in ImageSets."""
    fits = re.fullmatch(r"[\w-]+", value) is not None
    require(fits, key, value, "the name of a list in ImageSets without .txt, of letters, digits, _ and -")


def require_minimum(section: str, values: object, **minimum: float) -> None:
    """Raise ValueError unless each named attribute of ``values`` is at least the given minimum."""
    for key, least in minimum.items():
        value = getattr(values, key)
        require(value >= least, f"{section}.{key}", value, f">= {least}")
