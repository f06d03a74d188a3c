"""YAML -> frozen, validated dataclasses."""

from lib.config.loading import PROJECT_ROOT, dump_config, find_dataroot, load_config, parse_config
from lib.config.schema import (
    CLASS_NAMES,
    Config,
    Dataset,
    General,
    LrScheduler,
    Model,
    Optimizer,
    Tester,
    Trainer,
)

__all__ = [
    "CLASS_NAMES",
    "PROJECT_ROOT",
    "Config",
    "Dataset",
    "General",
    "LrScheduler",
    "Model",
    "Optimizer",
    "Tester",
    "Trainer",
    "dump_config",
    "find_dataroot",
    "load_config",
    "parse_config",
]
