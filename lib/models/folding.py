"""BatchNorm folded into the convolution before it, for inference."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(model: Module) -> Module:
    """A copy of ``model``, in eval mode, in which every BatchNorm that follows a convolution is part of it.

    Equal up to rounding, and a pass over the activations less for each. The copy cannot be trained.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        children = dict(module.named_children())
        names = list(children)
        for name, after in itertools.pairwise(names):
            conv, bn = children[name], children[after]
            # conv1 and bn1 are neighbours, as are the entries of a Sequential
            if isinstance(conv, nn.Conv2d) and isinstance(bn, nn.BatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, after, nn.Identity())
    return model
