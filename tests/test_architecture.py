"""The import table of the house (docs: who may import whom), and a planted violation of each rule that must fail."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

# room -> rooms of lib it may import; every room may import itself and `files`
ALLOWED = {
    "files": set(),
    "config": set(),
    "ops": set(),
    "structures": {"ops"},
    "datasets": {"config", "structures", "ops"},
    "models": {"config", "ops"},
    "losses": {"config", "ops"},
    "postprocess": {"structures", "ops"},
    "evaluation": {"structures"},
    "visualization": {"structures", "ops"},
    "engine": {"config", "structures", "ops", "postprocess"},
    "prediction": {"config", "datasets", "engine", "models", "ops", "postprocess", "structures", "visualization"},
}
TORCH_FREE = {"evaluation", "structures", "config", "files"}
SPAWNED_BY_TORCHRUN = Path("lib/engine/distributed.py")
MAX_LINES, MAX_FUNCTION_LINES = 300, 60


def room_of(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


def imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module in ("lib", "os"))


def violations(path: Path, source: str) -> list[str]:
    """What a file of lib, by its path relative to the project, does against the rules."""
    room, tree, found = room_of(path), ast.parse(source), []
    for name in imports(tree):
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top == "lib" and target in ALLOWED and target not in ALLOWED[room] | {room, "files"}:
            found.append(f"{path}: {room} imports {name}")
        if name.startswith("."):
            found.append(f"{path}: relative import {name}")
        if name in ("os.environ", "os.getenv") and path != SPAWNED_BY_TORCHRUN:
            found.append(f"{path}: reads the environment")
        if top in ("argparse", "importlib", "tools", "make_obj_depth"):
            found.append(f"{path}: lib imports {name}")
        if room in TORCH_FREE and top in ("torch", "torchvision", "cv2"):
            found.append(f"{path}: {room} imports {name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and path != SPAWNED_BY_TORCHRUN:
            found.append(f"{path}, line {node.lineno}: reads the environment")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{path}, line {node.lineno}: bare except")
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            found.append(f"{path}, line {node.lineno}: print in lib")
    return found


LIB = sorted(p.relative_to(PROJECT) for p in (PROJECT / "lib").rglob("*.py") if p != PROJECT / "lib" / "__init__.py")


@pytest.mark.parametrize("path", LIB, ids=str)
def test_imports_follow_the_table(path):
    assert room_of(path) in ALLOWED, f"{path}: a room that the table does not know"
    assert violations(path, (PROJECT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lib/evaluation/x.py", "import torch"),
        ("lib/evaluation/x.py", "def f():\n    import cv2"),
        ("lib/datasets/x.py", "from lib.losses import Criterion"),
        ("lib/datasets/x.py", "from lib import engine"),
        ("lib/losses/x.py", "import lib.datasets.kitti"),
        ("lib/engine/x.py", "from lib.evaluation import evaluate_kitti"),
        ("lib/ops/x.py", "from lib.structures import Object3d"),
        ("lib/models/x.py", "import argparse"),
        ("lib/models/x.py", "from ..engine import trainer"),
        ("lib/models/x.py", "from os import environ"),
        ("lib/models/x.py", "import importlib"),
        ("lib/models/x.py", "from tools import train_val"),
        ("lib/models/x.py", "import os\nos.environ['A']"),
        ("lib/models/x.py", "import os\nos.getenv('A')"),
        ("lib/models/x.py", "try:\n    pass\nexcept:\n    pass"),
        ("lib/models/x.py", "print(1)"),
    ],
)
def test_planted_violations_are_found(path, source):
    assert len(violations(Path(path), source)) == 1


def test_evaluation_loads_neither_torch_nor_opencv():
    code = "import sys, lib.evaluation.kitti, tools.evaluate_kitti; print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_loader_workers_do_not_load_numba():
    code = "import sys, lib.datasets.samples; print('numba' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("path", LIB, ids=str)
def test_files_and_functions_stay_readable(path):
    source = (PROJECT / path).read_text()
    assert source.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{path}: {node.name}"
