"""Every command of README and docs runs in a copy of the project on a few small frames, or is listed with a reason.

In the copy a few keys of the YAML files are changed to small sizes. Commands run as documented; placeholders such as
DIR are replaced.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch
import yaml

from tests.conftest import PROJECT
from tests.test_docs import ALL

EXAMPLE = "experiments/example/kitti_example.yaml"
TRAIN = f"python tools/train_val.py --config {EXAMPLE}"
DEPTH_SPACE = f"python tools/depth_space.py --config {EXAMPLE}"
EVALUATE = "python tools/evaluate_kitti.py --labels data/KITTI/training/label_2"
DIAGNOSE = "python tools/diagnose.py"
EVIDENCE = "experiments/evidence"
RELEASE = "python tools/export_onnx.py --checkpoint outputs/kitti_example/checkpoints/checkpoint_epoch_140.pth"
PREDICT = "python tools/predict.py --checkpoint"
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
    (f"{EVALUATE} --results DIR --ids data/KITTI/ImageSets/val.txt", {"DIR": RESULTS}),
    (f"{EVALUATE} --results DIR --ids data/KITTI/ImageSets/val.txt --bootstrap", {"DIR": RESULTS}),
    (
        f"{EVALUATE} --results A --ids data/KITTI/ImageSets/val.txt --against B --json ap.json",
        {"A": RESULTS, "B": RESULTS},
    ),
    ("python tools/visualize.py --dataroot D --results R --out O", {"D": "data/KITTI", "R": RESULTS, "O": "images"}),
    (f"python tools/visualize.py --dataroot data/KITTI --results {RESULTS} --out images", {}),
    ("python tools/describe_config.py", {}),
    ("python tools/plot_run.py outputs/monodle outputs/ddml --out compared.pdf", {}),
    ("python tools/make_report.py outputs/ddml", {}),
    (
        f"{DEPTH_SPACE} --checkpoint ddml.pth --checkpoint2 monodle.pth --config2 experiments/monodle/monodle.yaml "
        "--names DDML MonoDLE --out outputs/depth_space",
        {},
    ),
    (
        f"python tools/loss_gradients.py --config {EXAMPLE} "
        "--checkpoints outputs/kitti_example/checkpoints/checkpoint_epoch_140.pth --out outputs/loss_gradients",
        {},
    ),
    (f"{DIAGNOSE} --config {EXAMPLE} --checkpoint checkpoint_epoch_140.pth --out outputs/diagnosis", {}),
    (f"{DIAGNOSE} --ceiling --config experiments/monodle/monodle.yaml --out outputs/ceiling", {}),
    (f"{PREDICT} x.pth --input photos --fx 1400 --out found", {}),
    (f"{PREDICT} x.pth --input photo.jpg --fx 1400 --fy 1400 --cx 961 --cy 548 --out found", {}),
    (f"{PREDICT} x.pth --input drive.mp4 --calib camera.txt --out found", {}),
    (f"{PREDICT} x.pth --input photos --assume-kitti-camera --out found", {}),
    (f"{PREDICT} x.pth --input 'photos/*.jpg' more/c.png --fx 1400 --out found", {}),
    ("python tools/export_onnx.py --checkpoint x.pth --out x.onnx", {}),
    (f"{RELEASE} --release small.pth", {}),
    ("python tools/train_val.py -e --config outputs/kitti_example/config.yaml --set tester.split=train", {}),
    (f"{PREDICT} x.pth --input data/KITTI/testing/image_2 --calib data/KITTI/testing/calib --out found", {}),
    (f"{PREDICT} official.pth --config {EXAMPLE} --input photos --fx 1400 --out found", {}),
]
"""in the order in which they can run, with the values of their placeholders"""
NOT_RUN = {
    r"make (test|test-slow|lint)": "the test suite itself and the linters, which .ci/run runs",
    r"make (quickstart|evidence|evidence-batch16|real|twins)": "trainings of ten minutes to some hours",
    r"python tools/check_dataset\.py --dataroot data/KITTI --verify": "needs KITTI; tests/test_checking.py runs it",
    r"python \.\./\.\./tools/train_val\.py": "run from a folder of experiments/ below",
    r"torchrun .*": "tests/test_distributed.py runs torchrun",
    r"python tools/make_submission\.py": "needs 7518 frames; tests/test_submission.py packs as many",
    r"python tools/compare\.py": "many trainings; tests/test_compare.py runs four",
    r"python tools/make_synthetic_kitti\.py --out data/bf16": "the data of such a comparison; the tool is run above",
    rf"python tools/\w+\.py --config {EVIDENCE}": "needs checkpoints of `make evidence`; the tools are run above",
    r"python .* (mine\.yaml|outputs/mine/.*)$": "tests/test_other_data.py runs it",
    r"python tools/train_val\.py --config mine\.yaml --e --set": "tests/test_train_val.py reads an official one",
    r"python tools/predict\.py --checkpoint x\.pth --input 0": "needs a camera; tests/test_predict.py simulates one",
    r"python make_obj_depth\.py --dataroot DIR": "the same",
    r"python tools/bench/coverage\.py": "three minutes; tests/test_bench.py runs it for two detectors",
    r"python tools/bench/gpu\.py": "needs a GPU; tests/test_bench.py runs it in tiny sizes",
}
"""beginning of a command -> why it is not run"""


def test_every_command_is_run_or_has_a_reason():
    run = [command for command, _ in RUN]
    others = [command for command in ALL if command not in run]
    assert set(run) <= set(ALL)
    assert [command for command in others if not any(re.match(pattern, command) for pattern in NOT_RUN)] == []
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, command) for command in others)] == []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project as git has it, with rendered frames as data/KITTI, and YAML files that train a narrow network."""
    root = tmp_path_factory.mktemp("copy") / "project"
    files = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(files, cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout to copy")
    for name in filter(lambda name: (PROJECT / name).is_file(), listed.stdout.splitlines()):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, root / name)
    command = "tools/make_synthetic_kitti.py --out rendered --train 4 --val 8 --test 2 --size 320x96"
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


def bring_own_files(root: Path) -> None:
    """Files that a user has: checkpoints, one of them without configuration, photographs, a video, its calibration."""
    shutil.copytree(root / "outputs/kitti_example", root / "outputs/ddml")
    for name, source in (("x", "kitti_example"), ("ddml", "kitti_example"), ("monodle", "monodle")):
        shutil.copy(root / f"outputs/{source}/checkpoints/checkpoint_epoch_140.pth", root / f"{name}.pth")
    state = torch.load(root / "x.pth", weights_only=True)
    torch.save({key: state[key] for key in ("epoch", "model_state", "optimizer_state")}, root / "official.pth")
    photo = cv2.resize(cv2.imread(str(root / "data/KITTI/testing/image_2/000000.png")), (640, 360))
    (root / "photos").mkdir()
    (root / "more").mkdir()
    for path in (root / "photo.jpg", root / "photos/a.jpg", root / "photos/b.jpg", root / "more/c.png"):
        cv2.imwrite(str(path), photo)
    video = cv2.VideoWriter(str(root / "drive.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (640, 360))
    for _ in range(3):
        video.write(photo)
    video.release()
    shutil.copy(root / "data/KITTI/testing/calib/000000.txt", root / "camera.txt")


def run_command(command: str, cwd: Path) -> None:
    words = shlex.split(command)
    assert words[0] == "python"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command_line = [sys.executable, *words[1:]]
    done = subprocess.run(command_line, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.slow
def test_documented_commands_run(copy: Path) -> None:
    for command, placeholders in RUN:
        if "outputs/ddml" in command and not (copy / "outputs/ddml").exists():
            bring_own_files(copy)
        shutil.rmtree(copy / "found", ignore_errors=True)
        words = [placeholders.get(word, word) for word in shlex.split(command)]
        run_command(shlex.join(words), copy)
    assert (copy / RESULTS).is_dir()
    assert (copy / "docs/configuration.md").read_text() == (PROJECT / "docs/configuration.md").read_text()


@pytest.mark.slow
def test_training_runs_from_the_folder_of_its_experiment(copy: Path) -> None:
    folder = copy / "experiments" / "example"
    run_command("python ../../tools/train_val.py --config kitti_example.yaml --set trainer.max_epoch=1", folder)
    assert (folder / "outputs" / "kitti_example" / "train.log").is_file()
