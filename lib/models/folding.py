"""BatchNorm folded into the convolution before it, for inference."""

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .timm_backbone import TimmBackbone

Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norm(model: Module) -> Module:
    """A copy of ``model`` in eval mode, in which each BatchNorm after a convolution is folded into that convolution.

    Outputs are equal up to rounding. The copy cannot be trained.
    """
    model = copy.deepcopy(model).eval()
    foreign = {part for module in model.modules() if isinstance(module, TimmBackbone) for part in module.modules()}
    for module in model.modules():
        if module in foreign:  # their modules need not run in the order in which they are registered
            continue
        children = dict(module.named_children())
        for name, after in itertools.pairwise(list(children)):
            conv, bn = children[name], children[after]
            # child modules are registered in the order in which they run: conv1 and bn1, or the entries of a Sequential
            if type(conv) is nn.Conv2d and type(bn) is nn.BatchNorm2d:  # subclasses may do more
                setattr(module, name, fuse_conv_bn_eval(conv, bn))
                setattr(module, after, nn.Identity())
    return model
