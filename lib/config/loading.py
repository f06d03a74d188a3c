"""YAML file and ``--set`` overrides -> :class:`Config`.

The official DDML and MonoDLE files load unchanged: keys that moved between the two, or into section ``general``
here, are accepted where those files have them. Everything else that is unknown is an error with a hint.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .schema import Config

PROJECT_ROOT = Path(__file__).resolve().parent.parent.parent

_SECTIONS: dict[str, type] = {f.name: typing.get_type_hints(Config)[f.name] for f in dataclasses.fields(Config)}
_GENERAL_ALIASES = {
    "random_seed": "random_seed",
    "seed": "random_seed",
    "exp_name": "exp_name",
    "dataroot": "dataroot",
    "root_dir": "dataroot",
}
"""keys of section general that other files have at the top level, or in one of the sections below"""
_ALIAS_SECTIONS = ("general", "dataset", "trainer", "tester")
_RENAMED = {("tester", "pictures"): "images"}
"""keys of version 0.1 that have another name now: its runs and checkpoints still load"""


class _UniqueKeyLoader(yaml.SafeLoader):
    """Safe YAML in which a key that is written twice is an error instead of a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            key = key_node.value
            if key != "<<" and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


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
        raise ValueError(f"{_culprit(path, raw, overrides, str(error))}: {error}") from None
    if not config.general.exp_name:
        general = dataclasses.replace(config.general, exp_name=path.stem)
        config = dataclasses.replace(config, general=general)
    return config


def _culprit(path: Path, raw: Mapping[str, Any], overrides: Sequence[str], message: str) -> str:
    """The file, and where it is sound by itself the overrides that ``message`` speaks of."""
    if message.startswith("--set"):  # it names the override already
        return str(path)
    try:
        parse_config(raw)
    except ValueError:
        return str(path)
    named = [text for text in overrides if text.partition("=")[0].strip().rpartition(".")[2] in message]
    return f"{path} with --set {' '.join(named or overrides)}"


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, None where it is empty. Raises ValueError, also for a key that is written twice."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no text, 2026-13-45
        reason = " ".join(str(error).split()).replace('in "<unicode string>", ', "")
        raise ValueError(f"{path}: not valid YAML: {reason}") from None


def parse_config(raw: Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """The same from a nested mapping, such as the one stored in a checkpoint. Raises ValueError."""
    values = _by_section(raw)
    for override in overrides:
        section, key, value = _split_override(override)
        values[section][key] = value
    return Config(**{name: _build(cls, name, values[name]) for name, cls in _SECTIONS.items()})


def dump_config(config: Config) -> dict[str, Any]:
    """Plain nested dict (lists for tuples): what is written beside a run, and into its checkpoints."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, tuple) else value

    result: dict[str, Any] = plain(dataclasses.asdict(config))
    return result


def flatten(nested: Mapping[str, Any]) -> dict[str, Any]:
    """{'section.key': value} of what :func:`dump_config` returns, or of what a checkpoint holds."""
    return {f"{s}.{k}": v for s, section in nested.items() if isinstance(section, Mapping) for k, v in section.items()}


def differences(config: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """'section.key' -> (value in ``config``, value in ``other``) of all keys in which they differ."""
    mine, theirs = flatten(dump_config(config)), flatten(dump_config(other))
    return {key: (value, theirs[key]) for key, value in mine.items() if value != theirs[key]}


def find_dataroot(config: Config) -> Path:
    """The data folder that ``general.dataroot`` means: relative to the project root.

    Official files say ``../../data``, seen from experiments/<name>/; leading ``..`` therefore fall back on the
    project root, and a folder that holds ``KITTI`` stands for that.
    """
    given = Path(config.general.dataroot).expanduser()
    stripped = Path(*(part for part in given.parts if part != ".."))
    candidates = [given] if given.is_absolute() else [PROJECT_ROOT / given, PROJECT_ROOT / stripped]
    for candidate in candidates:
        for folder in (candidate, candidate / "KITTI"):
            if (folder / "ImageSets").is_dir():
                return folder.resolve()
    raise FileNotFoundError(
        f"general.dataroot={config.general.dataroot!r}: no folder ImageSets in {candidates[0]} or its KITTI/; "
        "expected KITTI's layout (ImageSets/, training/image_2, calib, label_2)"
    )


def find_file(name: str, key: str) -> Path:
    """A file that ``key`` names: relative to the project root, as in a YAML, or to the working directory, as typed.

    Raises FileNotFoundError, or ValueError where the two are different files.
    """
    given = Path(name).expanduser()
    found = [place for place in (PROJECT_ROOT / given, given) if place.is_file()]
    if not found:
        raise FileNotFoundError(f"{key}: no file {name!r}; looked for {PROJECT_ROOT / given}, {given.absolute()}")
    if not found[0].samefile(found[-1]):
        raise ValueError(f"{key}: {name!r} may mean {found[0]} or {found[1].absolute()}; give the whole path of one")
    return found[0]


def _by_section(raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    values: dict[str, dict[str, Any]] = {name: {} for name in _SECTIONS}

    def put(section: str, key: str, value: Any, written_as: str) -> None:
        if key in values[section] and values[section][key] != value:
            raise ValueError(f"{written_as}={value!r} contradicts {section}.{key}={values[section][key]!r}")
        values[section][key] = value

    for name, content in raw.items():
        if name in _GENERAL_ALIASES:
            put("general", _GENERAL_ALIASES[name], content, name)
            continue
        if name not in _SECTIONS:
            raise ValueError(f"unknown section {name!r}{_hint(name, (*_SECTIONS, *_GENERAL_ALIASES))}")
        if content is None:
            continue
        if not isinstance(content, Mapping):
            raise ValueError(f"section {name} must be a mapping of keys, got {content!r}")
        own = {f.name for f in dataclasses.fields(_SECTIONS[name])}
        for written, value in content.items():
            key = _RENAMED.get((name, written), written)
            if key in own:
                put(name, key, value, f"{name}.{key}")
            elif key in _GENERAL_ALIASES and name in _ALIAS_SECTIONS:
                put("general", _GENERAL_ALIASES[key], value, f"{name}.{key}")
            else:
                raise ValueError(f"unknown key {name}.{key}{_hint(key, own)}")
    return values


def _split_override(override: str) -> tuple[str, str, Any]:
    target, equals, text = override.partition("=")
    section, dot, key = target.strip().partition(".")
    if not (equals and dot):
        raise ValueError(f"--set {override!r}: expected section.key=value, such as trainer.max_epoch=20")
    if section not in _SECTIONS:
        raise ValueError(f"--set {override!r}: unknown section {section!r}{_hint(section, _SECTIONS)}")
    key = _RENAMED.get((section, key), key)
    own = [f.name for f in dataclasses.fields(_SECTIONS[section])]
    if key not in own and key in _GENERAL_ALIASES and section in _ALIAS_SECTIONS:
        section, key = "general", _GENERAL_ALIASES[key]
    elif key not in own:
        raise ValueError(f"--set {override!r}: unknown key {section}.{key}{_hint(key, own)}")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise ValueError(f"--set {override!r}: {text!r} is not a YAML value") from None
    if value is None:
        raise ValueError(f"--set {override!r}: a value is missing ([] is an empty list, '' an empty text)")
    return section, key, value


def _hint(word: object, known: typing.Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(str(word), known, 1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def _build(cls: type, section: str, values: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    # a key without a value (`checkpoint:`) means its default
    return cls(**{k: _convert(v, hints[k], f"{section}.{k}") for k, v in values.items() if v is not None})


def _convert(value: Any, hint: Any, key: str) -> Any:
    """``value`` as the type that the dataclass states; ValueError where it is not one."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        if isinstance(value, str):  # official: gpu_ids: 0, 1
            value = [part.strip() for part in value.split(",") if part.strip()]
            value = [_number(part) for part in value]
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_convert(item, arguments[0], key) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
            raise ValueError(f"{key} must be a mapping such as {{Car: [1.5, 1.6, 3.5]}}, got {value!r}")
        return {name: _convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    if origin is types.UnionType:  # bool | str
        if isinstance(value, arguments):
            return value
        raise ValueError(f"{key} must be {' or '.join(a.__name__ for a in arguments)}, got {value!r}")
    if hint is float and isinstance(value, str):
        value = _number(value)  # YAML 1.1 reads 1e-5 as a word
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = _number(f"{value}.0")
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ValueError(f"{key} must be {names[hint]}, got {value!r}")
    if hint is float and not abs(value) < float("inf"):
        raise ValueError(f"{key} must be finite, got {value!r}")
    return value


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except (ValueError, OverflowError):
            continue
    return text
