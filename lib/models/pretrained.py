"""ImageNet weights for the backbone: a local file, torch's cache, or the first source that answers."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import re
import urllib.error
from pathlib import Path

import torch
from torch import Tensor

from ..config import find_file
from .dla import BACKBONES, DLA

logger = logging.getLogger(__name__)

SOURCES = (
    "http://dl.yf.io/dla/models/imagenet/{file}",
    "https://huggingface.co/timm/{name}.in1k/resolve/main/model.safetensors",
)
"""The authors' host, often down, whose files carry their hash in their names; and timm's copy of the same weights,
whose hash is not known here, so that its tensors' names and shapes are what is checked."""


def load_imagenet_weights(backbone: DLA, name: str, source: bool | str) -> None:
    """Fill ``backbone`` from ``source``: a file's path, or True for the cache and then the network.

    Raises:
        FileNotFoundError: no such file, or nothing cached and no source reachable; says what to do.
        ValueError: a file that is broken, has another hash than its name says, or belongs to another network.
    """
    path = find_file(source, "model.pretrained") if isinstance(source, str) else _cached_or_fetched(name)
    state = read_weights(path)
    own = backbone.state_dict()
    needed = [k for k in own if not k.startswith(backbone.unused_parameters()) and "num_batches_tracked" not in k]
    missing = [k for k in needed if k not in state]
    unfit = [k for k in state if k in own and state[k].shape != own[k].shape]
    unknown = [k for k in state if k not in own]
    if missing or unfit or unknown:
        first = (missing + unfit + unknown)[0]
        raise ValueError(f"{path}: not the weights of {name}: {first} is missing, unknown or of another shape")
    backbone.load_state_dict(state, strict=False)
    logger.info("backbone %s starts from %s", name, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .pth or .safetensors file; a name such as x-1a2b3c4d.pth is checked against its SHA-256."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file (model.pretrained)")
    expected = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if expected and not _sha256(path).startswith(expected[1]):
        raise ValueError(f"{path}: its SHA-256 does not start with {expected[1]}; delete it and fetch it again")
    try:
        state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path}: not a readable weights file ({' '.join(str(error).split())[:150]})") from None
    return {key.removeprefix("module."): value for key, value in state.items()}


def _cached_or_fetched(name: str) -> Path:
    prefix = BACKBONES[name].sha256_prefix
    if prefix is None:
        raise ValueError(f"model.pretrained: there are no ImageNet weights for {name}; set model.pretrained: false")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    published = f"{name}-{prefix}.pth"
    targets = [cache / published, cache / f"{name}.in1k.safetensors"]
    for target in targets:
        if target.is_file():
            return target
    failures = []
    for source, target in zip(SOURCES, targets, strict=True):
        url = source.format(file=published, name=name)
        logger.info("fetching %s", url)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), prefix if target is targets[0] else None)
            return target
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            failures.append(f"{url} ({error})")
    raise FileNotFoundError(
        f"no ImageNet weights for {name}: tried {'; '.join(failures)}. Fetch either file elsewhere and put it at "
        f"{targets[0]} or {targets[1]}, or name it in model.pretrained; or train from scratch: model.pretrained=false"
    )


def _read_torch(path: Path) -> dict[str, Tensor]:
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError("expected a dict of tensors")
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The float32 subset of the format: 8 bytes of length, a JSON header with offsets, raw little-endian numbers."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    state = {}
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise ValueError(f"{key} is {entry['dtype']}, expected F32")
        begin, end = entry["data_offsets"]
        raw = bytearray(content[8 + length + begin : 8 + length + end])
        state[key] = torch.frombuffer(raw, dtype=torch.float32).reshape(entry["shape"])
    return state


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
