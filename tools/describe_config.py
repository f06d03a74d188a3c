#!/usr/bin/env python3
"""Write docs/configuration.md: every key of a YAML file, from the dataclasses that read it."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import sys
import typing
from collections.abc import Sequence
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # run from anywhere, without installation

from lib.config import PROJECT_ROOT, Config, dump_config
from lib.system.commands import run_command
from lib.system.files import write_file

HEAD = """# Configuration

One YAML file is one experiment. Its keys, with their defaults; what is left out has its default, and a key that does
not exist is an error with a hint. `--set section.key=value` on the command line goes before the file. Official files
load unchanged: keys that they have in other places (`random_seed` at the top, `root_dir` in `dataset`) are accepted
there.

This page is written by `python tools/describe_config.py` from `lib/config/`; a test compares the two.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where the page cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = PROJECT_ROOT / "docs" / "configuration.md"
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help="default: docs/configuration.md")
    args = parser.parse_args(argv)

    def write() -> int:
        write_file(args.out, page().encode())
        print(f"all keys: {args.out}")
        return 0

    return run_command(write)


def page() -> str:
    """The page, as Markdown."""
    parts = [HEAD]
    hints = typing.get_type_hints(Config)
    defaults = dump_config(Config())
    for section in dataclasses.fields(Config):
        cls = hints[section.name]
        parts.append(f"\n## {section.name}\n\n| key | default | meaning |\n|---|---|---|\n")
        for key, meaning in meanings(cls).items():
            default = yaml.safe_dump(defaults[section.name][key], default_flow_style=True).split("\n...")[0].strip()
            parts.append(f"| `{key}` | `{default}` | {meaning} |\n")
    return "".join(parts)


def meanings(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass. Raises ValueError for a field without one."""
    source = inspect.getsource(sys.modules[cls.__module__])
    body = next(n.body for n in ast.parse(source).body if isinstance(n, ast.ClassDef) and n.name == cls.__name__)
    found = {}
    for field, after in zip(body, [*body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if not isinstance(text, str):
            raise ValueError(f"{cls.__name__}.{field.target.id} has no docstring")
        found[field.target.id] = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return found


if __name__ == "__main__":
    sys.exit(main())
