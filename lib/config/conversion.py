"""YAML values -> the types that the dataclasses declare."""

import types
import typing
from collections.abc import Mapping
from typing import Any

from .checks import shown

_TYPE_TEXTS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def convert(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the type ``hint``. Raises ValueError, naming ``key``, for a value of another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, str):  # official files have gpu_ids: 0, 1
            value = [_to_number(part.strip()) for part in value.split(",") if part.strip()]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(item, arguments[0], key) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{key} must be a mapping such as {{Car: [1.5, 1.6, 3.5]}}, got {shown(value)}")
        return {name: convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if origin is types.UnionType:  # bool | str
        if isinstance(value, arguments):
            return value
        raise ValueError(f"{key} must be {' or '.join(_TYPE_TEXTS[a] for a in arguments)}, got {shown(value)}")
    if hint is float and isinstance(value, str):
        value = _to_number(value)  # YAML 1.1 reads 1e-5 as a string
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = _to_number(f"{value}.0")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{key} must be {_TYPE_TEXTS[hint]}, got {shown(value)}")
    if hint is int and not abs(value) < 2**62:  # Python converts no number of more than 4300 digits to text
        raise ValueError(f"{key} must be between -2^62 and 2^62, got a larger number")
    if hint is float and not abs(value) < float("inf"):
        raise ValueError(f"{key} must be finite, got {shown(value)}")
    return value


def _to_number(text: str) -> Any:
    """The number that ``text`` contains, or ``text`` itself."""
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, OverflowError):
            continue
    return text
