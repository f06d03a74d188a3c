"""YAML file and ``--set`` overrides -> :class:`Config`.

The official DDML and MonoDLE files load unchanged: keys that they have at other places than this project are accepted
there. Every other unknown key is an error.
"""

import dataclasses
import difflib
import typing
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .checks import shown
from .conversion import convert
from .schema import Config

_SECTIONS: dict[str, type] = {f.name: typing.get_type_hints(Config)[f.name] for f in dataclasses.fields(Config)}
_GENERAL_ALIASES = {
    "random_seed": "random_seed",
    "seed": "random_seed",
    "exp_name": "exp_name",
    "dataroot": "dataroot",
    "root_dir": "dataroot",
}
"""keys of section general that official files have at the top level or in one of _ALIAS_SECTIONS"""
_ALIAS_SECTIONS = ("general", "dataset", "trainer", "tester")
_RENAMED = {
    ("tester", "pictures"): ("tester", "images"),
    ("general", "qi_weight"): ("losses", "quasi_isometric"),
    ("general", "obj_depth_weight"): ("losses", "obj_depth"),
}
"""places that keys had in version 0.1, whose files and checkpoints still load"""
_RETIRED = ("dataset.use_dontcare", "model.type", "model.neck", "model.num_class", "tester.type")
"""keys of official files and of version 0.1 that only one value fits: checked by _check_retired and not stored"""
_MOST_BYTES, _MOST_LEVELS, _MOST_ALIASES = 1 << 16, 20, 20  # aliases of aliases can make a value of many GB


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a repeated key is an error, where PyYAML takes the last value."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            key = key_node.value
            if key != "<<" and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, None if it is empty. Raises ValueError, also for a key that is written twice."""
    if path.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes are too many for a configuration; at most {_MOST_BYTES}")
    try:
        return _parse_yaml(path.read_bytes())  # UTF-8 or, with its mark, UTF-16
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are not UTF-8, dates such as 2026-13-45
        reason = " ".join(str(error).split()).replace('in "<byte string>", ', "")
        raise ValueError(f"{path}: not valid YAML in UTF-8: {reason}") from None


def _parse_yaml(text: str | bytes) -> Any:
    """Raises yaml.YAMLError, or ValueError for what would take all memory or all of the stack."""
    depth = aliases = 0
    for event in yaml.parse(text, _UniqueKeyLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        aliases += isinstance(event, yaml.AliasEvent)
        if depth > _MOST_LEVELS or aliases > _MOST_ALIASES:
            raise ValueError(f"more than {_MOST_LEVELS} levels or {_MOST_ALIASES} aliases")
    return yaml.load(text, _UniqueKeyLoader)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply ``section.key=value`` overrides, validate.

    Raises FileNotFoundError, or ValueError naming the file, the key, the value and what is accepted.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such config file (from {Path.cwd()})")
    raw = read_yaml(path)
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected sections {', '.join(_SECTIONS)}, got a {type(raw).__name__}")
    try:
        config = parse_config(raw, overrides)
    except ValueError as error:
        raise ValueError(f"{_find_culprit(path, raw, overrides, str(error))}: {error}") from None
    if not config.general.exp_name:
        general = dataclasses.replace(config.general, exp_name=path.stem)
        config = dataclasses.replace(config, general=general)
    return config


def parse_config(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """Configuration from a nested mapping, such as the one in a checkpoint. Raises ValueError."""
    values = _collect_by_section(raw)
    for override in overrides:
        section, key, value = _split_override(override)
        values[section][key] = value
    retired = {}
    for name in _RETIRED:
        section, _, key = name.partition(".")
        if values[section].get(key) is not None:
            retired[name] = values[section].pop(key)
    config = Config(**{name: _build(cls, name, values[name]) for name, cls in _SECTIONS.items()})
    _check_retired(retired, config)
    return config


def _check_retired(retired: Mapping[str, Any], config: Config) -> None:
    """Raise ValueError for a key of _RETIRED with another value than the one that has always been required."""
    accepted: dict[str, tuple[Any, ...]] = {
        "dataset.use_dontcare": (False, True),  # without effect in the official code too: DontCare has no depth
        "model.type": ("centernet3d",),
        "model.neck": ("DLAUp",),
        "model.num_class": (0, len(config.dataset.class_names)),
        "tester.type": tuple(dict.fromkeys(["kitti", config.dataset.type])),
    }
    for name, value in retired.items():
        if str(value).lower() not in [str(each).lower() for each in accepted[name]]:
            texts = " or ".join(str(each) for each in accepted[name])
            raise ValueError(f"{name} must be {texts} or left out, got {shown(value)}")


def _find_culprit(path: Path, raw: Mapping[str, Any], overrides: Sequence[str], message: str) -> str:
    """The file if it is invalid by itself, otherwise the file and the overrides whose keys ``message`` names."""
    if message.startswith("--set"):  # the message names the override already
        return str(path)
    try:
        parse_config(raw)
    except ValueError:
        return str(path)
    named = [text for text in overrides if text.partition("=")[0].strip().rpartition(".")[2] in message]
    return f"{path} with --set {' '.join(named or overrides)}"


def _collect_by_section(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}

    def put(section: str, key: str, value: Any, written_as: str) -> None:
        if key in values[section] and values[section][key] != value:
            raise ValueError(f"{written_as}={shown(value)} contradicts {section}.{key}={shown(values[section][key])}")
        values[section][key] = value

    for name, content in raw.items():
        if name in _GENERAL_ALIASES:
            put("general", _GENERAL_ALIASES[name], content, name)
        elif name not in _SECTIONS:
            raise ValueError(f"unknown section {name!r}{_hint(name, (*_SECTIONS, *_GENERAL_ALIASES))}")
        elif content is not None and not isinstance(content, Mapping):
            raise ValueError(f"section {name} must be a mapping of keys, got {shown(content)}")
        else:
            for written, value in (content or {}).items():
                section, key = _resolve(name, written)
                put(section, key, value, f"{name}.{written}")
    return values


def _resolve(section: str, key: str) -> tuple[str, str]:
    """The place in Config, (section, key), of a key of a file or an override. Raises ValueError for an unknown key."""
    section, key = _RENAMED.get((section, key), (section, key))
    known = [f.name for f in dataclasses.fields(_SECTIONS[section])]
    if key in known or f"{section}.{key}" in _RETIRED:
        return section, key
    if key in _GENERAL_ALIASES and section in _ALIAS_SECTIONS:
        return "general", _GENERAL_ALIASES[key]
    raise ValueError(f"unknown key {section}.{key}{_hint(key, known)}")


def _split_override(override: str) -> tuple[str, str, Any]:
    target, equals, text = override.partition("=")
    section, dot, key = target.strip().partition(".")
    try:
        if not (equals and dot):
            raise ValueError("expected section.key=value, such as trainer.max_epoch=20")
        if section not in _SECTIONS:
            raise ValueError(f"unknown section {section!r}{_hint(section, _SECTIONS)}")
        section, key = _resolve(section, key)
        try:
            value = _parse_yaml(text)
        except (yaml.YAMLError, ValueError):
            raise ValueError(f"{shown(text)} is not a YAML value") from None
        if value is None:
            raise ValueError(f"a value is missing; in a shell, '{target}=[]' is an empty list, \"{target}=''\" a text")
    except ValueError as error:
        raise ValueError(f"--set {shown(override)}: {error}") from None
    return section, key, value


def _hint(word: object, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(str(word), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _build(cls: type, section: str, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    # a key without a value (`checkpoint:`) has its default
    return cls(**{k: convert(v, hints[k], f"{section}.{k}") for k, v in values.items() if v is not None})
