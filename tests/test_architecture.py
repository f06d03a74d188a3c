"""Who may import whom (the table of the design), sizes of files and functions; planted violations must be found."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

METHOD = {"config", "structures", "datasets", "models", "losses", "postprocess", "evaluation", "engine", "ops"}
"""the way from an image to a loss to AP40; imports nothing of the other rooms but ``system``"""
ALLOWED = {
    "config": {"evaluation.reading"},  # one rule for type names
    "ops": set(),
    "system": set(),
    "evaluation": set(),
    "structures": {"ops", "evaluation.reading"},  # one reader of KITTI's text files
    "datasets": {"config", "structures", "ops", "system"},
    "models": {"config", "ops"},
    "losses": {"config", "ops"},
    "postprocess": {"structures", "ops"},
    "engine": {"config", "structures", "ops", "system", "postprocess"},
    "preparation": {"config", "structures", "datasets", "ops", "system"},
    "analysis": METHOD | {"system"},
    "export": METHOD | {"system"},
    "visualization": {"structures", "ops", "evaluation", "analysis"},
    "comparison": METHOD | {"system", "visualization", "analysis"},
    "prediction": METHOD | {"system", "visualization"},
    "synthetic": {"structures", "ops", "system"},
    "pipeline": METHOD | {"system", "analysis", "export", "visualization", "comparison", "prediction", "preparation"},
}
"""room -> rooms of lib that it may import; every room may import itself and ``lib.__version__``"""
SIDE_ROOMS = sorted(set(ALLOWED) - METHOD - {"system"})
TORCH_FREE = {"evaluation", "structures", "config", "synthetic"}
READS_ENVIRONMENT = Path("lib/engine/distributed.py")
IMPORTS_LAZILY = Path("lib/evaluation/__init__.py")
COMMAND = Path("lib/evaluation/command.py")  # of the distribution kitti-ap
MAX_LINES, MAX_FUNCTION_LINES = 300, 60
SOURCES = sorted(
    path.relative_to(PROJECT)
    for path in [*(PROJECT / "lib").rglob("*.py"), *(PROJECT / "tools").rglob("*.py"), PROJECT / "make_obj_depth.py"]
)
LIB = [path for path in SOURCES if path.parts[0] == "lib" and path != Path("lib/__init__.py")]


def room_of(path: Path) -> str:
    return path.parts[1].removesuffix(".py")


def imported_modules(path: Path, tree: ast.AST):
    """Absolute names of everything that a file imports; ``from x import y`` gives both x and x.y."""
    package = path.with_suffix("").parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def lib_targets(path: Path, tree: ast.AST) -> set[str]:
    """Rooms, and rooms with their modules ('evaluation.reading'), of lib that a file imports."""
    found = set()
    for name in imported_modules(path, tree):
        top, _, rest = name.partition(".")
        parts = rest.split(".")
        if top == "lib" and parts[0] in ALLOWED:
            found.add(parts[0])
            found.add(".".join(parts[:2]))
    return found


def violations(path: Path, source: str) -> list[str]:
    """Rules that a file of lib or tools breaks; ``path`` is relative to the project."""
    tree, found = ast.parse(source), []
    names = set(imported_modules(path, tree))
    if path.parts[0] == "lib" and path != Path("lib/__init__.py"):
        room, targets = room_of(path), lib_targets(path, tree)
        allowed = ALLOWED[room] | {room}
        by_module = {name for name in allowed if "." in name}
        for target in sorted(name for name in targets if "." not in name and name not in allowed):
            modules = {name for name in targets if name.startswith(f"{target}.")}
            if not modules or not modules <= by_module:
                found.append(f"{path}: {room} imports {target}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "lib":
                found.append(f"{path}, line {node.lineno}: absolute import of {node.module}")
            if isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "lib" for alias in node.names):
                found.append(f"{path}, line {node.lineno}: absolute import of lib")
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and path != READS_ENVIRONMENT:
                found.append(f"{path}, line {node.lineno}: reads the environment")
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print" and path != COMMAND:
                found.append(f"{path}, line {node.lineno}: print in lib")
        if names & {"os.environ", "os.getenv"} and path != READS_ENVIRONMENT:
            found.append(f"{path}: reads the environment")
        forbidden = {"tools", "make_obj_depth"} | ({"argparse"} if path != COMMAND else set())
        forbidden |= ({"importlib"} if path != IMPORTS_LAZILY else set())
        forbidden |= {"torch", "torchvision", "cv2"} if room in TORCH_FREE - {"synthetic"} else set()
        forbidden |= {"torch", "torchvision"} if room == "synthetic" else set()
        found += [f"{path}: imports {name}" for name in sorted({n.split(".")[0] for n in names} & forbidden)]
    elif "bench" not in path.parts:
        tools = {name.split(".")[1] for name in names if name.startswith("tools.")}
        found += [f"{path}: a command imports tools.{name}" for name in sorted(tools)]
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append(f"{path}, line {node.lineno}: bare except")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_follow_the_table(path):
    if path in LIB:
        assert room_of(path) in ALLOWED, f"{path}: a room that the table does not have"
    assert violations(path, (PROJECT / path).read_text()) == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("lib/evaluation/x.py", "import torch"),
        ("lib/evaluation/x.py", "def f():\n    import cv2"),
        ("lib/evaluation/x.py", "from ..structures import Object3d"),
        ("lib/structures/x.py", "from ..evaluation import evaluate_kitti"),
        ("lib/structures/x.py", "from ..evaluation.kitti import evaluate_kitti"),
        ("lib/datasets/x.py", "from ..losses import Criterion"),
        ("lib/datasets/x.py", "from .. import engine"),
        ("lib/losses/x.py", "from ..datasets.kitti import KITTI"),
        ("lib/engine/x.py", "from ..evaluation import evaluate_kitti"),
        ("lib/engine/x.py", "from ..models import build_model"),
        ("lib/engine/x.py", "from ..pipeline import run"),
        ("lib/ops/x.py", "from ..structures import Object3d"),
        ("lib/visualization/x.py", "from ..system.files import write_file"),
        ("lib/comparison/x.py", "from ..pipeline.run import run_experiment"),
        ("lib/synthetic/x.py", "import torch"),
        ("lib/pipeline/x.py", "from ..synthetic import render"),
        ("lib/models/x.py", "import argparse"),
        ("lib/models/x.py", "from lib.config import Config"),
        ("lib/models/x.py", "import lib.config"),
        ("lib/models/x.py", "from os import environ"),
        ("lib/models/x.py", "import importlib"),
        ("lib/models/x.py", "from tools import train_val"),
        ("lib/models/x.py", "import os\nos.environ['A']"),
        ("lib/models/x.py", "import os\nos.getenv('A')"),
        ("lib/models/x.py", "try:\n    pass\nexcept:\n    pass"),
        ("lib/models/x.py", "print(1)"),
        ("tools/x.py", "from tools.visualize import draw"),
        ("tools/x.py", "from tools import visualize"),
    ],
)
def test_planted_violations_are_found(path, source):
    assert len(violations(Path(path), source)) == 1


def test_allowed_imports_are_not_violations():
    assert violations(Path("lib/structures/x.py"), "from ..evaluation.reading import parse_line") == []
    assert violations(Path("lib/engine/x.py"), "from .. import __version__\nfrom .step import StepLosses") == []


def modules_after(code: str) -> str:
    code = f"import sys, {code}; print(sorted({{'torch', 'cv2', 'numba'}} & set(sys.modules)))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_evaluation_loads_neither_torch_nor_opencv():
    assert modules_after("lib.evaluation.kitti, tools.evaluate_kitti") == "['numba']"


def test_loader_workers_do_not_load_numba():
    assert modules_after("lib.datasets.samples") == "['cv2', 'torch']"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_files_and_functions_stay_readable(path):
    source = (PROJECT / path).read_text()
    assert source.count("\n") <= MAX_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            compiled = any("compiled" in ast.unparse(decorator) for decorator in node.decorator_list)
            assert compiled or node.end_lineno - node.lineno < MAX_FUNCTION_LINES, f"{path}: {node.name}"


def test_the_whole_stays_small():
    """Lines of lib and tools without the evaluator, of the evaluator (a distribution of its own), of the method with
    ops, and of the tests."""
    lines = {path: (PROJECT / path).read_text().count("\n") for path in SOURCES if path.parts[0] in ("lib", "tools")}
    evaluator = sum(number for path, number in lines.items() if path in LIB and room_of(path) == "evaluation")
    method = sum(number for path, number in lines.items() if path in LIB and room_of(path) in METHOD - {"evaluation"})
    tests = sum(path.read_text().count("\n") for path in (PROJECT / "tests").glob("*.py"))
    assert sum(lines.values()) - evaluator <= 18_100 and evaluator <= 2_500 and method <= 5_950 and tests <= 13_250


def files_without(room: str) -> tuple[set[Path], set[Path]]:
    """(deleted, kept) files of lib and tools without a side room, everything that imports it, and their tests."""
    files = set(SOURCES) | {p.relative_to(PROJECT) for p in (PROJECT / "tests").glob("*.py")}
    trees = {path: ast.parse((PROJECT / path).read_text()) for path in files}
    deleted = {path for path in LIB if room_of(path) == room}
    while True:
        modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in deleted}
        more = {path for path in files - deleted if modules & set(imported_modules(path, trees[path]))}
        if not more:
            return deleted, files - deleted
        deleted |= more


@pytest.mark.parametrize("room", SIDE_ROOMS)
def test_nothing_of_the_method_needs_a_side_room(room):
    deleted, _ = files_without(room)
    rooms = {room_of(path) for path in deleted if path in LIB}
    assert rooms <= set(SIDE_ROOMS) and room in rooms
    needed = {"preparation", "analysis", "visualization", "pipeline"}  # by a training with its evaluation and report
    assert (Path("tools/train_val.py") in deleted) == (room in needed)


@pytest.mark.slow
@pytest.mark.parametrize("room", SIDE_ROOMS)
def test_a_side_room_can_be_deleted(room, tmp_path):
    """In a copy of the project without the room, without what imports it and without their tests, the rest passes."""
    copy = tmp_path / "project"
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "outputs", "runs", ".*_cache"))
    deleted, _ = files_without(room)
    for path in deleted:
        (copy / path).unlink()
    for name in ("test_docs.py", "test_docs_commands.py", "test_architecture.py"):  # compare with all files
        (copy / "tests" / name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "--numprocesses", "2"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
