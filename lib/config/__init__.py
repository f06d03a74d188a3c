"""YAML -> frozen, validated dataclasses."""

from .dataset import CLASS_NAMES, MEAN_SIZES, Dataset
from .dump import differences, dump_config, flatten
from .loading import load_config, parse_config, read_yaml
from .paths import PROJECT_ROOT, find_dataroot, find_file
from .schema import Config, General, Losses, LrScheduler, Model, Optimizer, Tester, Trainer

__all__ = [
    "CLASS_NAMES",
    "MEAN_SIZES",
    "PROJECT_ROOT",
    "Config",
    "Dataset",
    "General",
    "Losses",
    "LrScheduler",
    "Model",
    "Optimizer",
    "Tester",
    "Trainer",
    "differences",
    "dump_config",
    "find_dataroot",
    "find_file",
    "flatten",
    "load_config",
    "parse_config",
    "read_yaml",
]
