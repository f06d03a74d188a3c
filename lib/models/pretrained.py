"""Weights of backbones: a local file, torch's cache, or the first download source that answers."""

import hashlib
import logging
import re
from pathlib import Path

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""of RGB in 0..1; the published weights were trained on images normalised with them"""
SOURCES = (
    "http://dl.yf.io/dla/models/imagenet/{file}",
    "https://huggingface.co/timm/{name}.in1k/resolve/main/model.safetensors",
)
"""The authors' host, whose file names contain the hash; and timm's copy of the same weights, whose hash is not recorded
here, so that only the names and shapes of its tensors are checked."""


def load_backbone_weights(backbone: nn.Module, path: Path, name: str, unused: tuple[str, ...] = ()) -> None:
    """Fill ``backbone``, called ``name`` in messages, from a file that may lack parameters with a prefix in ``unused``.

    Raises FileNotFoundError, or ValueError for a file that cannot be read or does not fit the backbone.
    """
    state = read_weights(path)
    own = backbone.state_dict()
    missing = [k for k in own if k not in state and not k.startswith(unused) and "num_batches_tracked" not in k]
    unfit = [k for k in state if k not in own or state[k].shape != own[k].shape]
    if missing or unfit:
        first = (missing + unfit)[0]
        raise ValueError(f"{path}: not the weights of {name}: {first} is missing, unknown or of another shape")
    backbone.load_state_dict(state, strict=False)
    logger.info("backbone %s starts from %s", name, path)


def read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a .pth or .safetensors file. A name such as x-1a2b3c4d.pth is compared with its SHA-256.

    Raises FileNotFoundError or ValueError, naming the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file (model.pretrained)")
    expected = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    if expected and not hashlib.sha256(path.read_bytes()).hexdigest().startswith(expected[1]):
        raise ValueError(f"{path}: its SHA-256 does not start with {expected[1]}; delete it and fetch it again")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ValueError(f"{path}: reading it needs the package safetensors: pip install safetensors") from None
    except Exception as error:  # both readers raise many kinds for a damaged file
        raise ValueError(f"{path}: not a readable weights file ({' '.join(str(error).split())[:150]})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ValueError(f"{path}: not a readable weights file (expected a dict of tensors)")
    return {key.removeprefix("module."): value for key, value in state.items()}


def find_imagenet_weights(name: str, sha256_prefix: str | None) -> Path:
    """The published weights of DLA ``name``: a file in torch's cache, downloaded where it is missing.

    Raises FileNotFoundError with advice where no source answers, and ValueError where nothing is published.
    """
    if sha256_prefix is None:
        raise ValueError(f"model.pretrained: there are no ImageNet weights for {name}; set model.pretrained: false")
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    published = f"{name}-{sha256_prefix}.pth"
    targets = [cache / published, cache / f"{name}.in1k.safetensors"]
    for target in targets:
        if target.is_file():
            return target
    failures = []
    for source, target in zip(SOURCES, targets, strict=True):
        url = source.format(file=published, name=name)
        logger.info("downloading %s", url)
        try:
            cache.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), sha256_prefix if target is targets[0] else None)
            return target
        except (OSError, RuntimeError) as error:  # RuntimeError: another hash
            failures.append(f"{url} ({error})")
    raise FileNotFoundError(
        f"no ImageNet weights for {name}: tried {'; '.join(failures)}. Fetch either file elsewhere and put it at "
        f"{targets[0]} or {targets[1]}, or name it in model.pretrained; or train from scratch: model.pretrained=false"
    )
