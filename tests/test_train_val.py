"""The commands, as a user runs them, on a tiny KITTI tree and a narrow network."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml

import make_obj_depth
from lib.analysis.depth_error import depth_errors
from lib.config import parse_config
from lib.datasets.object_depth import read_object_depth
from lib.engine.checkpoint import read_checkpoint
from lib.engine.run_folder import find_run_config
from lib.evaluation import read_annotations
from lib.pipeline import run as pipeline_run
from lib.pipeline.checkpoints import find_checkpoints_to_evaluate
from lib.pipeline.evaluation import Evaluator
from lib.structures import read_objects
from lib.system.interruption import Interrupted
from tests.conftest import PROJECT
from tools import train_val, visualize

YAML = """
general: {random_seed: 3, exp_name: tiny, qi: true, obj_depth: true}
dataset: {batch_size: 2, num_workers: 0, resolution: [320, 96], writelist: [Car, Pedestrian]}
model: {backbone: dla34_narrow, pretrained: false}
lr_scheduler: {warmup_epochs: 2}
trainer: {max_epoch: 4, save_frequency: 2, report: false}
tester: {threshold: 0.0, topk: 5, map_to_image: exact, images: 0}
"""


@pytest.fixture
def run(tiny_kitti, tmp_path, monkeypatch):
    """Calls train_val in an empty working directory; returns its status."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(YAML)

    def call(*arguments, depth=True):
        if depth and not (tiny_kitti / "training" / "obj_depth").is_dir():
            assert make_obj_depth.main(["--dataroot", str(tiny_kitti)]) == 0
        arguments = list(arguments)
        overrides = [f"general.dataroot={tiny_kitti}"]
        if "--set" in arguments:
            place = arguments.index("--set")
            arguments, overrides = arguments[:place], overrides + arguments[place + 1 :]
        return train_val.main(["--config", "tiny.yaml", *arguments, "--set", *overrides])

    return call


def expected_depth_errors(root, results):
    ids = (root / "ImageSets/val.txt").read_text().split()
    labels = read_annotations(root / "training/label_2", ids, False)
    detections = read_annotations(results / "data", ids, True)
    return [depth_errors(labels, detections, name).to_json() for name in ("Car", "Pedestrian")]


def test_train_then_evaluate_then_evaluate_only(run, tmp_path, tiny_kitti, capsys):
    assert run() == 0
    out = tmp_path / "outputs" / "tiny"
    assert sorted(p.name for p in (out / "checkpoints").iterdir()) == [
        "checkpoint_epoch_2.pth",
        "checkpoint_epoch_4.pth",
        "checkpoint_last.pth",
    ]
    camera = read_checkpoint(out / "checkpoints/checkpoint_last.pth")["camera"]
    assert camera == {"focal_net": pytest.approx(721.5377 * 320 / 1242)}  # of the images at network resolution
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [r["epoch"] for r in records] == [1, 2, 3, 4]
    terms = {"heatmap", "offset_2d", "size_2d", "depth", "offset_3d", "size_3d", "heading"}
    assert set(records[0]["losses"]) == terms | {"quasi_isometric", "obj_depth", "total"}
    assert records[0]["losses"]["total"] == pytest.approx(
        sum(v for k, v in records[0]["losses"].items() if k != "total"), rel=1e-4
    )
    assert records[-1]["losses"]["total"] < records[0]["losses"]["total"]
    assert set(records[-1]["ap"]) == {"Car 3D moderate AP40", "Pedestrian 3D moderate AP40"}
    stored = yaml.safe_load((out / "config.yaml").read_text())
    assert stored["dataset"]["resolution"] == [320, 96] and stored["general"]["dataroot"] == str(tiny_kitti)
    assert (out / "curves.png").stat().st_size > 1000
    assert not (out / "report.html").exists()  # switched off above
    results = out / "results" / "checkpoint_epoch_4" / "val"
    assert sorted(p.name for p in (results / "data").iterdir()) == [f"00000{i}.txt" for i in range(4)]
    # no images, as told
    assert sorted(p.name for p in results.iterdir()) == ["ap.json", "config.yaml", "data", "depth_error.json"]
    assert "official" in json.loads((results / "ap.json").read_text())
    assert json.loads((results / "depth_error.json").read_text()) == expected_depth_errors(tiny_kitti, results)
    said = capsys.readouterr().out
    assert "epoch 4/4" in said and "Car 3D" in said

    before = {p.name: p.read_text() for p in (results / "data").iterdir()}
    (results / "data" / "999999.txt").write_text("stale")
    assert run("--e") == 0
    assert {p.name: p.read_text() for p in (results / "data").iterdir()} == before
    assert run("-e", "--set", "tester.mode=all") == 0
    check_summary(out / "results" / "val_summary.csv", results)
    assert run("--evaluate_only", "--set", "tester.split=test", "tester.checkpoint=checkpoint_epoch_2.pth") == 0
    test_results = out / "results" / "checkpoint_epoch_2" / "test"
    assert len(list((test_results / "data").iterdir())) == 2 and not (test_results / "ap.json").exists()

    assert train_val.main(["-e"]) == 0  # by the only run's own configuration
    assert {p.name: p.read_text() for p in (results / "data").iterdir()} == before
    check_images(tiny_kitti, tmp_path, results / "data", out / "checkpoints" / "checkpoint_epoch_4.pth", capsys)


def check_images(tiny_kitti, tmp_path, results, checkpoint, capsys):
    """tools/visualize.py with results and with labels alone."""
    images = tmp_path / "images"
    arguments = ["--dataroot", str(tiny_kitti), "--results", str(results), "--out", str(images)]
    assert visualize.main([*arguments, "--count", "2"]) == 0
    assert sorted(p.name for p in images.iterdir()) == ["000000.png", "000001.png"]
    capsys.readouterr()
    assert visualize.main([*arguments, "--ids", "000009"]) == 2
    assert "1 of the 1 files of the given frames are missing, the first is 000009.png" in capsys.readouterr().err

    # labels alone, object-wise depth, the network's heatmap
    alone = tmp_path / "alone"
    arguments = ["--dataroot", str(tiny_kitti), "--out", str(alone), "--count", "1"]
    assert visualize.main([*arguments, "--maps", "--checkpoint", str(checkpoint)]) == 0
    original = cv2.imread(str(tiny_kitti / "training/image_2/000000.png")).astype(int)
    plain, depth, heatmap = (cv2.imread(str(alone / f"000000{kind}.png")) for kind in ("", "_depth", "_heatmap"))
    changed = (depth != original).any(axis=2)
    assert changed.mean() > 0.02 and not (changed & ~painted(tiny_kitti / "training")).any()
    assert heatmap.shape == original.shape and plain.shape[0] == original.shape[0]
    capsys.readouterr()
    of_test = ["--results", str(results.parents[2] / "checkpoint_epoch_2/test/data"), "--out", str(tmp_path / "t")]
    assert visualize.main(["--dataroot", str(tiny_kitti), *of_test]) == 0
    assert "2 images, detections: " in capsys.readouterr().out  # of testing/, which has no labels
    assert visualize.main([*arguments, "--split", "test"]) == 2
    assert "split 'test' has no labels to draw" in capsys.readouterr().err
    assert visualize.main([*arguments, "--checkpoint", str(tmp_path / "no.pth")]) == 2
    assert "no.pth: no such checkpoint" in capsys.readouterr().err


def test_evaluation_without_a_configuration(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert train_val.main(["-e"]) == 2
    assert "no --config, and no run in" in capsys.readouterr().err
    for name in ("old", "new"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
        (tmp_path / "outputs" / name / "config.yaml").write_text("{}")
    os.utime(tmp_path / "outputs/old/config.yaml", (1, 1))
    assert train_val.main(["-e"]) == 2
    said = "several runs in outputs/: new, old; for the newest: --config outputs/new/config.yaml"
    assert said in capsys.readouterr().err
    with pytest.raises(SystemExit):
        train_val.main([])


def test_a_renamed_run_is_not_taken_for_another(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("own", "own.old"):
        (tmp_path / "outputs" / name / "checkpoints").mkdir(parents=True)
        (tmp_path / "outputs" / name / "config.yaml").write_text("general: {exp_name: own, dataroot: nowhere}")
    assert find_run_config() == Path("outputs/own/config.yaml")  # the other one was moved aside
    for config, message in (("own.old", "add --set general.exp_name=own.old"), ("own", "general.dataroot='nowhere'")):
        assert train_val.main(["-e", "--config", f"outputs/{config}/config.yaml"]) == 2
        assert message in capsys.readouterr().err
    assert train_val.main(["-e", "--config", "outputs/own.old/config.yaml", "--set", "general.exp_name=own.old"]) == 2
    assert "general.dataroot='nowhere'" in capsys.readouterr().err


def test_a_shortened_run_evaluates_its_last_checkpoint(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    (folder / "checkpoint_epoch_2.pth").touch()
    for name in ("checkpoint_epoch_140.pth", "checkpoints/checkpoint_epoch_140.pth"):
        config = parse_config({"tester": {"checkpoint": name}})
        assert find_checkpoints_to_evaluate(config, tmp_path) == [folder / "checkpoint_epoch_2.pth"]
        assert "its last checkpoint, checkpoint_epoch_2.pth, is evaluated instead" in caplog.text
    for name in ("best.pth", "elsewhere/checkpoint_epoch_140.pth"):
        with pytest.raises(FileNotFoundError, match="no checkpoint"):
            find_checkpoints_to_evaluate(parse_config({"tester": {"checkpoint": name}}), tmp_path)


def check_summary(path, last):
    header, *rows = csv.reader(path.read_text().splitlines())
    assert header[:4] == ["checkpoint", *(f"Car 3D {name}" for name in ("easy", "moderate", "hard"))]
    assert [row[0] for row in rows] == ["checkpoint_epoch_2", "checkpoint_epoch_4"]
    ap = json.loads((last / "ap.json").read_text())["official"]["Car"]
    assert rows[1][1:5] == [f"{value:.2f}" for value in (*ap["3d"]["R40"], ap["bev"]["R40"][1])]


def painted(training):
    """Where frame 000000's depth map may change its image: at objects, and at the scale below."""
    found = read_object_depth(training / "obj_depth_all" / "000000.npy", (1242, 375)) > 0
    found[320:, :320] = True
    return found


def weights(path):
    return read_checkpoint(path)["model_state"]


def test_a_resumed_run_is_the_run_that_was_not_interrupted(run, tmp_path, capsys):
    """Jitter draws from torch's generator, which loaders draw from too unless they are kept from it."""
    jitter, resume = "dataset.color_jitter=[0.3, 0.3, 0.3, 0.1]", "trainer.resume_model=checkpoint_epoch_2.pth"
    assert run("--set", "general.exp_name=whole", jitter, "dataset.num_workers=2") == 0
    assert run("--set", "general.exp_name=parts", jitter, "trainer.max_epoch=2") == 0
    assert run("--set", "general.exp_name=parts", jitter, resume, "dataset.num_workers=2") == 0
    whole, parts = (tmp_path / "outputs" / name for name in ("whole", "parts"))
    a, b = (weights(folder / "checkpoints" / "checkpoint_epoch_4.pth") for folder in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [
        [json.loads(line)["losses"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, parts)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    before = {p.name: p.read_bytes() for p in (parts / "checkpoints").iterdir()}
    assert "later than checkpoint_epoch_2" in errors(run, capsys, "--set", "general.exp_name=parts", resume)
    other = f"trainer.resume_model={whole / 'checkpoints' / 'checkpoint_epoch_2.pth'}"
    assert "earlier run" in errors(run, capsys, "--set", "general.exp_name=parts", other)
    last = "trainer.resume_model=checkpoint_epoch_4.pth"
    assert before == {p.name: p.read_bytes() for p in (parts / "checkpoints").iterdir()}
    fewer = "trainer.max_epoch=3"
    assert "4 epochs are done already" in errors(run, capsys, "--set", "general.exp_name=parts", last, fewer)
    assert "exclude each other" in errors(run, capsys, "--overwrite", "--set", "general.exp_name=parts", last)


def test_evaluation_during_training_keeps_the_best(run, tmp_path, monkeypatch):
    scores, real = iter([3.0, float("nan"), 7.0, 5.0]), Evaluator.__call__

    def evaluate(*arguments):
        return {name: next(scores) for name in list(real(*arguments))[:1]}

    monkeypatch.setattr(Evaluator, "__call__", evaluate)
    assert run("--set", "trainer.eval_frequency=1", "dataset.train_split=trainval", "tester.split=trainval") == 0
    folders = sorted(p.name for p in (tmp_path / "outputs/tiny/results").iterdir())
    assert folders == [f"checkpoint_epoch_{n}" for n in (1, 2, 3, 4)]
    assert (tmp_path / "outputs/tiny/results/checkpoint_epoch_3/trainval/ap.json").is_file()
    best = read_checkpoint(tmp_path / "outputs/tiny/checkpoints/checkpoint_best.pth")
    assert (best["epoch"], best["best"]) == (3, 7.0)
    folder = tmp_path / "outputs/tiny/checkpoints"
    assert (folder / "checkpoint_epoch_4.pth").samefile(folder / "checkpoint_last.pth")  # one file on the disk
    assert not (folder / "checkpoint_best.pth").samefile(folder / "checkpoint_last.pth")
    assert read_checkpoint(folder / "checkpoint_last.pth")["epoch"] == 4


def test_colour_jitter_other_optimizers_and_bfloat16_run(run):
    for kind, amp in (("adamw", "off"), ("sgd", "bf16")):
        changes = [f"general.exp_name={kind}", f"optimizer.type={kind}", "trainer.max_epoch=1", f"trainer.amp={amp}"]
        assert run("--set", *changes, "dataset.color_jitter=[0.2, 0.2, 0.2, 0.05]") == 0


def test_an_official_checkpoint_starts_a_run(run, tmp_path):
    """Weights only, without what this project adds, with the prefix of DataParallel."""
    assert run("--set", "trainer.max_epoch=1") == 0
    state = weights(tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth")
    optimizer = read_checkpoint(tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth")["optimizer_state"]
    official = {"epoch": 1, "model_state": {f"module.{k}": v for k, v in state.items()}, "optimizer_state": optimizer}
    torch.save(official, tmp_path / "official.pth")
    changes = ["general.exp_name=resumed", "trainer.resume_model=official.pth", "trainer.max_epoch=2"]
    assert run("--set", *changes) == 0
    assert json.loads((tmp_path / "outputs/resumed/metrics.jsonl").read_text())["epoch"] == 2
    assert run("-e", "--set", "tester.checkpoint=official.pth") == 0
    results = sorted(p.name for p in (tmp_path / "outputs/tiny/results").iterdir())
    assert results == ["checkpoint_epoch_1", f"{tmp_path.name}_official"]
    changes = ["general.exp_name=tuned", "trainer.pretrain_model=official.pth", "trainer.max_epoch=1"]
    assert run("--set", *changes) == 0


def test_a_loss_that_is_not_finite_stops_the_run(run, tmp_path, capsys):
    assert run("--set", "trainer.max_epoch=1") == 0
    path = tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth"
    state = read_checkpoint(path)
    state["model_state"]["depth.2.bias"][:] = 3e38  # finite, but not its difference from a depth
    torch.save(state, tmp_path / "nan.pth")
    capsys.readouterr()
    assert run("--set", "general.exp_name=nan", "trainer.pretrain_model=nan.pth") == 1
    said = capsys.readouterr().err
    assert "the loss is not finite" in said and "depth=inf" in said and "frames 00000" in said
    assert not list((tmp_path / "outputs/nan/checkpoints").glob("*"))


def errors(run, capsys, *arguments, **options):
    status = run(*arguments, **options)
    said = capsys.readouterr().err
    last = said.strip().splitlines()[-1]
    assert status == 2 and last.startswith("error: "), said
    return last


def test_bad_input_is_one_line_before_training_starts(run, tmp_path, tiny_kitti, capsys):
    assert "make_obj_depth.py" in errors(run, capsys, depth=False)
    assert not (tmp_path / "outputs").exists()
    assert "trainer.max_epoch" in errors(run, capsys, "--set", "trainer.max_epoch=0")
    assert "no checkpoint 'no.pth'" in errors(run, capsys, "-e", "--set", "tester.checkpoint=no.pth")
    assert "train first" in errors(run, capsys, "-e")
    (tmp_path / "broken.pth").write_bytes(b"PK")
    assert "broken.pth" in errors(run, capsys, "-e", "--set", "tester.checkpoint=broken.pth")
    assert "model.pretrained" in errors(run, capsys, "--set", "model.pretrained=nowhere.pth")
    label = tiny_kitti / "training/label_2/000003.txt"
    good = label.read_text()
    label.write_text(good.replace("41.67", "far"))
    assert "000003.txt, line 1: z must be a finite number, got 'far'" in errors(run, capsys)
    label.write_text(good)
    np.save(tiny_kitti / "training/obj_depth_all/000000.npy", np.zeros((3, 4), np.float32))
    assert "000000.npy: depth map is (3, 4)" in errors(run, capsys)
    (tiny_kitti / "training/image_2/000002.png").write_bytes(b"no image")
    assert make_obj_depth.main(["--dataroot", str(tiny_kitti), "--force"]) == 2
    assert "000002.png: not a PNG" in capsys.readouterr().err
    assert "000002.png: not a PNG" in errors(run, capsys)
    assert not (tmp_path / "outputs/tiny/checkpoints").exists()


def test_an_earlier_run_is_not_written_over(run, tmp_path, capsys):
    assert run("--set", "trainer.max_epoch=1") == 0
    path = tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth"
    before = path.read_bytes()
    assert "earlier run" in errors(run, capsys, "--set", "trainer.max_epoch=1")
    assert path.read_bytes() == before
    for mistake in ("general.dataroot=nowhere", "model.backbone=dla35", "trainer.pretrain_model=no.pth"):
        errors(run, capsys, "--overwrite", "--set", mistake)
        assert path.read_bytes() == before
    assert run("--overwrite", "--set", "trainer.max_epoch=1", "optimizer.lr=0.01") == 0
    assert path.read_bytes() != before
    assert (tmp_path / "outputs/tiny.old/checkpoints/checkpoint_epoch_1.pth").read_bytes() == before
    between = path.read_bytes()
    assert run("--overwrite", "--set", "trainer.max_epoch=1") == 0
    assert (tmp_path / "outputs/tiny.old/checkpoints/checkpoint_epoch_1.pth").read_bytes() == before
    assert (tmp_path / "outputs/tiny.old2/checkpoints/checkpoint_epoch_1.pth").read_bytes() == between


def test_object_depth_command(tiny_kitti, tmp_path, capsys):
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    tiny_kitti.rename(root / "data" / "KITTI")
    training = root / "data" / "KITTI" / "training"
    assert make_obj_depth.main(["--path", str(root)]) == 0
    assert "8 maps written, 0 were there already" in capsys.readouterr().out
    cars, everything = (np.load(training / folder / "000000.npy") for folder in ("obj_depth", "obj_depth_all"))
    assert cars.shape == (375, 1242) and cars.dtype == np.float32
    assert set(np.unique(cars).tolist()) == {0.0, np.float32(9.44), np.float32(26.83)}
    assert np.float32(16.2) in everything and np.float32(16.2) not in cars
    assert not np.load(training / "obj_depth" / "000002.npy").any()
    assert make_obj_depth.main(["--path", str(root), "--format", "npz"]) == 0
    assert "8 maps written, 0 were there already" in (said := capsys.readouterr().out)
    assert "8 maps of the other format were deleted" in said
    sizes = [path.stat().st_size for path in training.glob("obj_depth*/*")]
    assert len(sizes) == 8 and max(sizes) < 20_000
    assert make_obj_depth.main(["--path", str(root), "--format", "npz"]) == 0
    assert "0 maps written, 8 were there already" in (said := capsys.readouterr().out) and "deleted" not in said
    assert make_obj_depth.main(["--path", str(root)]) == 0
    assert "8 maps written" in capsys.readouterr().out and len(list(training.glob("obj_depth*/*.npy"))) == 8
    (training / "obj_depth" / "000001.npy").unlink()
    assert make_obj_depth.main(["--path", str(root)]) == 0
    assert "1 maps written, 7 were there already" in capsys.readouterr().out
    assert make_obj_depth.main(["--path", str(root), "--force"]) == 0
    assert "8 maps written" in capsys.readouterr().out
    assert make_obj_depth.main(["--path", str(tmp_path / "nowhere")]) == 2
    assert "no images" in capsys.readouterr().err
    np.save(training / "obj_depth" / "000001.npy", np.zeros((3, 4), np.float32))
    (training / "image_2" / "000003.png").unlink()
    assert make_obj_depth.main(["--path", str(root)]) == 0
    said = capsys.readouterr().out
    assert "1 maps written, 5 were there already" in said and "1 label files without an image" in said


def test_the_command_runs_from_an_experiment_folder(tiny_kitti, tmp_path):
    """As in the README: python ../../tools/train_val.py --config x.yaml; results go below that folder."""
    folder = tmp_path / "experiments" / "mine"
    folder.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(YAML.replace("max_epoch: 4", "max_epoch: 1").replace("obj_depth: true", "K: 2"))
    command = [sys.executable, PROJECT / "tools/train_val.py", "--config", "tiny.yaml"]
    done = subprocess.run(
        [*command, "--set", f"general.dataroot={tiny_kitti}"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth").is_file()
    assert "AP40 [%]" in done.stdout and "\nCar 3D" in done.stdout


@pytest.mark.parametrize("script", ["tools/train_val.py", "make_obj_depth.py", "tools/visualize.py"])
def test_help_from_any_folder(script, tmp_path):
    run = subprocess.run(
        [sys.executable, PROJECT / script, "--help"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "usage:" in run.stdout


@pytest.mark.kitti
def test_real_frames_train_and_evaluate(real_frames, tmp_path, monkeypatch):
    """The shipped example on the eight real frames, at a small size; the full size is in the note of issue 2."""
    root = tmp_path / "KITTI"
    (root / "ImageSets").mkdir(parents=True)
    for name in ("image_2", "calib", "label_2"):
        (root / "training").mkdir(exist_ok=True)
        os.symlink(real_frames / "training" / name, root / "training" / name)
    ids = sorted(p.stem for p in (root / "training" / "label_2").iterdir())
    assert len(ids) == 8
    for split in ("train", "val"):
        (root / "ImageSets" / f"{split}.txt").write_text("\n".join(ids))
    monkeypatch.chdir(tmp_path)
    assert make_obj_depth.main(["--dataroot", str(root)]) == 0
    command = ["--config", str(PROJECT / "experiments/example/kitti_example.yaml")]
    changes = ["model.pretrained=false", "trainer.max_epoch=1", "dataset.batch_size=4", "dataset.num_workers=0"]
    changes += [f"general.dataroot={root}", "model.backbone=dla34_narrow", "dataset.resolution=[640, 192]"]
    assert train_val.main([*command, "--set", *changes]) == 0
    assert train_val.main([*command, "-e", "--set", *changes, "tester.checkpoint=checkpoint_epoch_1.pth"]) == 0
    results = tmp_path / "outputs/kitti_example/results/checkpoint_epoch_1/val/data"
    assert sorted(p.stem for p in results.iterdir()) == ids
    assert all(read_objects(p) is not None for p in results.iterdir())


def many_frames(tiny_kitti, count):
    """The first frame under so many names, as the training split."""
    training = tiny_kitti / "training"
    for k in range(10, 10 + count):
        for name, suffix in (("image_2", "png"), ("calib", "txt"), ("label_2", "txt")):
            os.symlink(training / name / f"000000.{suffix}", training / name / f"{k:06d}.{suffix}")
    (tiny_kitti / "ImageSets/train.txt").write_text("".join(f"{k:06d}\n" for k in range(10, 10 + count)))


def test_bad_frames_are_skipped_up_to_one_percent(run, tmp_path, tiny_kitti, capsys):
    many_frames(tiny_kitti, 100)
    changes = ["general.obj_depth=false", "trainer.max_epoch=1", "dataset.batch_size=10"]
    changes += ["dataset.resolution=[128, 64]"]
    (tiny_kitti / "training/label_2/000017.txt").unlink()
    assert "000017.txt" in errors(run, capsys, "--set", *changes)
    changes.append("dataset.on_bad_frame=skip")
    assert run("--set", *changes) == 0
    assert "frame 000017 is skipped: " in capsys.readouterr().out
    (record,) = [json.loads(line) for line in (tmp_path / "outputs/tiny/metrics.jsonl").read_text().splitlines()]
    assert record["skipped_frames"] == 1
    progress = read_checkpoint(tmp_path / "outputs/tiny/checkpoints/checkpoint_last.pth")["progress"]
    assert progress["skipped"] == ["000017"]
    (tiny_kitti / "training/calib/000018.txt").unlink()
    said = errors(run, capsys, "--overwrite", "--set", *changes)
    assert "2 of 100 training frames cannot be read, more than 1%" in said and "check_dataset" in said


def test_a_run_that_is_not_finished_can_be_evaluated(run, tmp_path):
    assert run("--set", "trainer.max_epoch=1") == 0
    (tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth").unlink()
    assert run("-e") == 0
    assert (tmp_path / "outputs/tiny/results/checkpoint_last/val/ap.json").is_file()


def test_only_the_last_checkpoints_are_kept(run, tmp_path):
    assert run("--set", "trainer.save_frequency=1", "trainer.keep_last=2") == 0
    names = sorted(p.name for p in (tmp_path / "outputs/tiny/checkpoints").iterdir())
    assert names == ["checkpoint_epoch_3.pth", "checkpoint_epoch_4.pth", "checkpoint_last.pth"]


def test_resuming_a_path_and_what_does_not_go_together(run, tmp_path, capsys):
    assert run("--set", "trainer.max_epoch=1") == 0
    path = str(tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth")
    assert run("--resume", path, "--set", "trainer.max_epoch=2") == 0
    assert len((tmp_path / "outputs/tiny/metrics.jsonl").read_text().splitlines()) == 2
    both = ["--resume", path, "--set", f"trainer.resume_model={path}"]
    assert "exclude each other" in errors(run, capsys, *both)
    assert "exclude each other" in errors(run, capsys, "--resume", "--overwrite")
    assert "-e trains nothing" in errors(run, capsys, "-e", "--resume")
    said = errors(run, capsys, "--resume", "no.pth")
    assert "no checkpoint 'no.pth'" in said and "newest is checkpoint_epoch_2.pth: --resume checkpoint_epoch" in said
    assert "the path is empty" in errors(run, capsys, "--resume", "")


@pytest.mark.parametrize(("options", "advice"), [(["--resume"], "--resume"), (["--overwrite"], "without --overwrite")])
def test_the_advice_after_an_interruption_can_be_followed(run, capsys, monkeypatch, options, advice):
    assert run("--set", "trainer.max_epoch=1") == 0

    def interrupted(*arguments):
        raise Interrupted(signal.SIGINT)

    for name in ("build_trainer", "evaluate_checkpoints"):
        monkeypatch.setattr(pipeline_run, name, interrupted)
    assert run(*options) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith(advice)
    assert run("-e") == 130
    assert "--resume" not in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("evaluate_every", [0, 1])
def test_a_finished_run_of_elsewhere_is_taken_over(run, tmp_path, evaluate_every):
    """With the official keys only, and nothing left to train: its weights are this run's, and evaluated."""
    assert run("--set", "trainer.max_epoch=1") == 0
    state = read_checkpoint(tmp_path / "outputs/tiny/checkpoints/checkpoint_epoch_1.pth")
    official = {name: state[name] for name in ("epoch", "model_state", "optimizer_state")}
    torch.save(official, tmp_path / "theirs.pth")
    changes = ["general.exp_name=ours", "trainer.max_epoch=1", "trainer.report=true"]
    changes.append(f"trainer.eval_frequency={evaluate_every}")
    assert run("--resume", "theirs.pth", "--set", *changes) == 0
    ours = read_checkpoint(tmp_path / "outputs/ours/checkpoints/checkpoint_epoch_1.pth")
    assert all(torch.equal(ours["model_state"][name], value) for name, value in state["model_state"].items())
    results = "results/checkpoint_epoch_1/val"
    figures = [(tmp_path / "outputs" / name / results / "ap.json").read_text() for name in ("tiny", "ours")]
    assert figures[0] == figures[1]
    assert (tmp_path / "outputs/ours/report.html").is_file()


def test_a_run_that_is_further_than_asked_for_is_refused(run, tmp_path, capsys):
    assert run("--set", "trainer.max_epoch=1") == 0
    path = tmp_path / "outputs/tiny/checkpoints/checkpoint_last.pth"
    state = read_checkpoint(path)
    state["progress"]["frames_done"] = 2  # as inside the second epoch
    torch.save(state, path)
    said = errors(run, capsys, "--resume", "--set", "trainer.max_epoch=1")
    assert "checkpoint_last.pth: it is inside epoch 2 already, trainer.max_epoch=1" in said


def test_a_path_that_means_two_files_is_refused(run, tmp_path, capsys):
    """README.md is here and in the project."""
    (tmp_path / "README.md").write_text("no checkpoint")
    said = errors(run, capsys, "--resume", "README.md")
    assert f"may mean {PROJECT / 'README.md'} or {tmp_path / 'README.md'}; give the full path" in said
    said = errors(run, capsys, "--set", "model.pretrained=README.md")
    assert said.startswith("error: model.pretrained: 'README.md' may mean")
    assert "README.md: not a readable checkpoint" in errors(run, capsys, "--resume", str(tmp_path / "README.md"))


def test_the_official_code_finds_its_keys(run, tmp_path):
    """It reads 'epoch', 'model_state' and 'optimizer_state' of a pickle that needs none of this project's classes."""
    assert run("--set", "trainer.max_epoch=1") == 0
    path = tmp_path / "outputs/tiny/checkpoints/checkpoint_last.pth"
    code = (
        "import sys, torch\nstate = torch.load(sys.argv[1], weights_only=False)\n"
        "model, optimizer = state['model_state'], state['optimizer_state']\n"
        "print(state['epoch'], all(torch.is_tensor(v) for v in model.values()), sorted(optimizer))\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'lib'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["1 True ['param_groups', 'state']", "[]"]
