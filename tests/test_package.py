"""The wheel ddml, beside a project that has a package lib of its own; and the program of docs/package.md."""

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lib
from tests.conftest import PROJECT

PAGE = PROJECT / "docs" / "package.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel, built without a network."""
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(PROJECT)], check=True, capture_output=True)
    (wheel,) = folder.glob("ddml-*.whl")
    assert wheel.name == f"ddml-{lib.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(code: str, folder: Path, site: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{site}"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Another project, which has a package lib."""
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text("OWNER = 'another project'\n")
    return tmp_path


def test_the_wheel_has_all_modules_and_nothing_else(site: Path) -> None:
    expected = {path.relative_to(PROJECT / "lib") for path in (PROJECT / "lib").rglob("*.py")}
    assert {path.relative_to(site / "ddml") for path in site.rglob("*.py")} == expected
    others = {path.relative_to(site / "ddml").as_posix() for path in (site / "ddml").rglob("*") if path.suffix != ".py"}
    folders = {path.relative_to(site / "ddml").as_posix() for path in (site / "ddml").rglob("*") if path.is_dir()}
    assert others - folders == {"py.typed", "evaluation/py.typed", "evaluation/drives.csv", "visualization/page.html"}


def test_every_module_is_imported_and_lib_stays_the_other_projects(site: Path, foreign: Path) -> None:
    names = [path.relative_to(site).with_suffix("").parts for path in site.rglob("*.py")]
    modules = sorted(".".join(parts[:-1] if parts[-1] == "__init__" else parts) for parts in names)
    code = f"import importlib, lib\nfor name in {modules}: importlib.import_module(name)\n"
    code += "import ddml, ddml.config\nassert lib.OWNER == 'another project' and lib.__file__ != ddml.__file__\n"
    code += "print(ddml.config.PROJECT_ROOT)"
    assert run(code, foreign, site).strip() == "."  # relative paths are those of the working directory


def test_a_model_trains_one_step_and_is_loaded_for_prediction(site: Path, foreign: Path) -> None:
    code = """
import numpy as np, torch
from ddml.config import Config, Dataset, Model, dump_config
from ddml.models import build_model
from ddml.prediction import load_detector
config = Config(model=Model(backbone="dla34_narrow", pretrained=False), dataset=Dataset(resolution=(128, 64)))
model = build_model(config)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
outputs = model(torch.rand(2, 3, 64, 128), torch.zeros(2, 3, dtype=torch.int64))
outputs["depth"].square().mean().backward()
optimizer.step()
torch.save({"epoch": 1, "model_state": model.state_dict()}, "x.pth")
detector = load_detector("x.pth", config, device="cpu")
P2 = np.array([[100, 0, 64, 0], [0, 100, 32, 0], [0, 0, 1, 0]])
print(len(detector(np.zeros((64, 128, 3), np.uint8), P2)))
"""
    assert run(code, foreign, site).strip().isdigit()


def test_the_program_of_the_page_learns(site: Path, foreign: Path) -> None:
    (program,) = re.findall(r"```python\n# your_training.py\n(.*?)```", PAGE.read_text(), re.S)
    (foreign / "your_training.py").write_text(program)
    code = """
import torch
torch.manual_seed(0)
import your_training
images, depths = torch.rand(2, 3, 64, 128), torch.tensor([[8.0, 20.0, 0.0], [11.0, 15.0, 30.0]])
first = [[4.0, 8, 60, 60], [70, 20, 110, 50], [0, 0, 0, 0]]
boxes = torch.tensor([first, [[0, 0, 40, 30], [50, 10, 90, 60], [96, 30, 128, 64]]])
mask = depths > 0
print(*(your_training.training_step(images, boxes, depths, mask) for _ in range(20)))
print(*(bool(p.grad.abs().sum() > 0) for p in your_training.depth_head.parameters()))
"""
    losses, trained = run(code, foreign, site).splitlines()
    assert float(losses.split()[-1]) < 0.8 * float(losses.split()[0]) and set(trained.split()) == {"True"}


def test_the_wheel_needs_the_versions_of_the_requirement_files(site: Path) -> None:
    (metadata,) = site.glob("ddml-*.dist-info/METADATA")
    needed = email.message_from_string(metadata.read_text())
    plain = {text for text in needed.get_all("Requires-Dist") if ";" not in text}
    assert plain == set((PROJECT / "requirements.txt").read_text().split())
    optional = {text.partition(";")[0] for text in needed.get_all("Requires-Dist")} - plain
    assert optional <= set((PROJECT / "requirements-dev.txt").read_text().split())
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.M)
    assert sorted(named) == sorted(needed.get_all("Provides-Extra"))
