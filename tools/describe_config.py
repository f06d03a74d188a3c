#!/usr/bin/env python3
"""Write docs/configuration.md: every key of a YAML file, with the docstrings of lib/config."""

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

One YAML file describes one experiment. This page lists all keys. A key that is not in the file has its default; an
unknown key is an error. `--set section.key=value` on the command line overrides the file. The official files load
unchanged: keys that they have at other places (`random_seed` at the top level, `root_dir` in section `dataset`) are
accepted there. The keys `use_dontcare` (dataset), `type`, `neck` and `num_class` (model) and `type` (tester) have no
effect; they are accepted with the values that fit this project, and need not be given.

This page is written by `python tools/describe_config.py` from `lib/config/`; a test compares the two.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 if the page cannot be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = PROJECT_ROOT / "docs" / "configuration.md"
    parser.add_argument("--out", type=Path, default=default, metavar="FILE", help="default: docs/configuration.md")
    args = parser.parse_args(argv)

    def write() -> None:
        write_file(args.out, build_page().encode())
        print(f"all keys: {args.out}")

    return run_command(write)


def build_page() -> str:
    """The page, in Markdown."""
    parts = [HEAD]
    hints = typing.get_type_hints(Config)
    defaults = dump_config(Config())
    for section in dataclasses.fields(Config):
        cls = hints[section.name]
        parts.append(f"\n## {section.name}\n\n| key | default | meaning |\n|---|---|---|\n")
        for key, meaning in read_docstrings(cls).items():
            default = yaml.safe_dump(defaults[section.name][key], default_flow_style=True).split("\n...")[0].strip()
            parts.append(f"| `{key}` | `{default}` | {meaning} |\n")
    return "".join(parts)


def read_docstrings(cls: type) -> dict[str, str]:
    """The docstring under each field of a dataclass, by field. Raises ValueError for a field without one."""
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
