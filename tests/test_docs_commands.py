"""Every command of README and docs is run in a copy of the project on a few small frames, or is listed with a reason.

The copy's YAML files keep all their keys but a few that make them small; the commands are run as they stand, but for
placeholders such as DIR.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import PROJECT
from tests.test_docs import ALL

TRAIN = "python tools/train_val.py --config experiments/example/kitti_example.yaml"
RESULTS = "outputs/kitti_example/results/checkpoint_epoch_140/val/data"
RUN: list[tuple[str, dict[str, str]]] = [
    ("python tools/make_synthetic_kitti.py --out DIR --train N --val N", {"DIR": "small", "N": "2"}),
    ("python tools/check_dataset.py --dataroot data/KITTI", {}),
    ("python make_obj_depth.py", {}),
    ("python make_obj_depth.py --format npz", {}),
    (TRAIN, {}),
    (f"{TRAIN} --e", {}),
    (
        "python tools/export_onnx.py --checkpoint outputs/kitti_example/checkpoints/checkpoint_epoch_140.pth "
        "--out car.onnx",
        {},
    ),
    (
        "python tools/run_onnx.py --model car.onnx --input data/KITTI/testing/image_2 --calib data/KITTI/testing/calib "
        "--out DIR",
        {"DIR": "results"},
    ),
    (f"{TRAIN} --resume", {}),
    ("python tools/train_val.py --config experiments/monodle/monodle.yaml", {}),
    (f"{TRAIN} --set general.exp_name=submission dataset.train_split=trainval tester.split=test", {}),
    (
        "python tools/evaluate_kitti.py --labels data/KITTI/training/label_2 --results DIR "
        "--ids data/KITTI/ImageSets/val.txt",
        {"DIR": RESULTS},
    ),
    ("python tools/visualize.py --dataroot D --results R --out O", {"D": "data/KITTI", "R": RESULTS, "O": "pictures"}),
    ("python tools/describe_config.py", {}),
]
"""in the order in which they can be run, with what stands for their placeholders"""
NOT_RUN = {
    "make quickstart": "ten minutes; ../shared/fresh.sh runs it",
    "make test": "this very suite; .ci/run runs it",
    "make test-slow": "this very suite",
    "make lint": ".ci/run runs it",
    "python ../../tools/train_val.py --config kitti_example.yaml": "run from a folder of experiments/ below",
    "torchrun --nproc_per_node=2 tools/train_val.py --config experiments/example/kitti_example.yaml": (
        "tests/test_distributed.py runs torchrun"
    ),
    "python tools/make_submission.py --results outputs/submission/results/checkpoint_epoch_140/test/data "
    "--out submission.zip": "needs 7518 frames; tests/test_submission.py packs as many",
    "python tools/bench/gpu.py --json $OUT/gpu.json": "for a GPU; tests/test_bench.py runs it in tiny sizes",
}


def test_every_command_is_run_or_has_a_reason():
    run = [command for command, _ in RUN]
    assert sorted([*run, *NOT_RUN]) == ALL
    assert all(len(reason.split()) > 2 for reason in NOT_RUN.values())


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as git has it, with six rendered frames as data/KITTI, and YAML files that train a narrow network."""
    root = tmp_path_factory.mktemp("copy") / "project"
    files = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(files, cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout to copy")
    for name in listed.stdout.splitlines():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    command = "tools/make_synthetic_kitti.py --out rendered --train 4 --val 2 --test 2 --size 320x96"
    subprocess.run([sys.executable, *command.split()], cwd=root, check=True, capture_output=True)
    shutil.rmtree(root / "data" / "KITTI")
    (root / "rendered").rename(root / "data" / "KITTI")
    for path in root.glob("experiments/*/*.yaml"):
        content = yaml.safe_load(path.read_text())
        if "trainer" not in content:
            continue
        content["model"] |= {"backbone": "dla34_narrow", "pretrained": False}
        content["dataset"] |= {"resolution": [96, 32], "batch_size": 4, "num_workers": 0}
        content["tester"] |= {"threshold": 0.0, "topk": 5}
        path.write_text(yaml.safe_dump(content))
    return root


def call(command: str, cwd: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "python"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command_line = [sys.executable, *words[1:]]
    done = subprocess.run(command_line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_the_commands_run(copy: Path) -> None:
    for command, placeholders in RUN:
        words = [placeholders.get(word, word) for word in shlex.split(command)]
        call(shlex.join(words), copy)
    assert (copy / RESULTS).is_dir()
    assert (copy / "docs/configuration.md").read_text() == (PROJECT / "docs/configuration.md").read_text()


@pytest.mark.slow
def test_the_command_runs_from_its_experiment(copy: Path) -> None:
    folder = copy / "experiments" / "example"
    call("python ../../tools/train_val.py --config kitti_example.yaml --set trainer.max_epoch=1", folder)
    assert (folder / "outputs" / "kitti_example" / "train.log").is_file()
