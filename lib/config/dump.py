"""Config -> plain dictionaries, and the comparison of two configurations."""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from .schema import Config


def dump_config(config: Config) -> dict[str, Any]:
    """Nested dictionary with lists in place of tuples: the content of config.yaml, also stored in checkpoints."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def flatten(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """{'section.key': value} of a configuration or of a nested dictionary such as the one in a checkpoint."""
    nested = dump_config(config) if isinstance(config, Config) else config
    return {f"{s}.{k}": v for s, section in nested.items() if isinstance(section, Mapping) for k, v in section.items()}


def differences(
    old: Config | Mapping[str, Any], new: Config | Mapping[str, Any], keys: Collection[str] | None = None
) -> dict[str, tuple[Any, Any]]:
    """{'section.key': (old value, new value)} of the keys with different values.

    Keys that only one side contains are left out. ``keys``: compare these only.
    """
    before, after = flatten(old), flatten(new)
    common = [key for key in after if key in before and (keys is None or key in keys)]
    return {key: (before[key], after[key]) for key in common if before[key] != after[key]}
