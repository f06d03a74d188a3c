"""Checkpoint -> configuration and model, ready for inference."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..config import Config, load_config, parse_config
from .checkpoint import load_model_state, read_checkpoint
from .run_folder import EVALUATION_KEYS, require_same_decoding, warn_of_differences


class TrainedNetwork(NamedTuple):
    """What a checkpoint holds."""

    config: Config  # the checkpoint's own, or the one that was given
    model: Any  # CenterNet3D without the obj_depth head, which only training uses
    state: dict[str, Any]  # the whole checkpoint


def load_network(
    path: Path,
    build_model: Callable[[Config], nn.Module],
    config: str | Path | Config | None = None,
    overrides: Sequence[str] = (),
) -> TrainedNetwork:
    """Load a checkpoint of this or of the official code; warn where ``EVALUATION_KEYS`` differ from the training's.

    A configuration that contradicts the checkpoint's classes or sizes is an error.

    Args:
        build_model: ``lib.models.build_model``; passed in, since the engine imports no model.
        config: a YAML file or its content; None: the configuration in the checkpoint.
        overrides: 'section.key=value'; not with a ``Config``, which has them.

    Raises:
        FileNotFoundError, ValueError: naming the file and what is wrong.
    """
    if isinstance(config, Config) and overrides:
        raise ValueError(f"overrides go with a YAML file or a checkpoint's own config, got {list(overrides)}")
    state = read_checkpoint(path)
    stored = state.get("config")
    own = config is None
    if config is None:
        config = _stored_config(path, stored, overrides)
    elif not isinstance(config, Config):
        config = load_config(config, overrides)
    require_same_decoding(path, stored, config)
    warn_of_differences(path, stored, config, EVALUATION_KEYS)
    try:
        model = build_model(replace(config, general=replace(config.general, obj_depth=False)))
    except ValueError as error:
        raise ValueError(f"{path}: the model of its config cannot be built: {error}" if own else str(error)) from None
    load_model_state(model, state["model_state"], path)
    return TrainedNetwork(config, model, state)


def _stored_config(path: Path, stored: object, overrides: Sequence[str]) -> Config:
    if not isinstance(stored, dict) or not stored:
        raise ValueError(f"{path}: it has no config, as official checkpoints have none; name its YAML with --config")
    tester = stored.get("tester")
    if isinstance(tester, dict) and tester.get("map_to_image") == "official":
        # the default before there was 'auto', which is the same wherever it is right
        stored = stored | {"tester": {key: value for key, value in tester.items() if key != "map_to_image"}}
    try:
        config = parse_config(stored)
    except ValueError as error:
        raise ValueError(f"{path}: its config: {error}; name a YAML with --config") from None
    return parse_config(stored, overrides) if overrides else config
