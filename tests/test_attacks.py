"""What a small container, a killed process or a damaged file must not do: end in a hang, a traceback or a lost run."""

import contextlib
import errno
import json
import math
import multiprocessing
import os
import re
import shlex
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg
import torch

from lib.config import Config, Dataset, General, load_config
from lib.datasets import KITTI, build_dataset, loader
from lib.datasets.images import read_image
from lib.datasets.object_depth import read_object_depth
from lib.datasets.samples import Batch, Unreadable, training_loader
from lib.engine.checkpoint import read_checkpoint, save_checkpoint
from lib.engine.checkpoint_content import check_content
from lib.engine.distributed import ProcessGroup
from lib.engine.inference import InferenceBatch, detect
from lib.engine.metrics import MetricsLog, read_metrics
from lib.engine.progress import Progress
from lib.engine.skipped import SkippedFrames
from lib.pipeline import run as run_module
from lib.postprocess import DECODER_INPUTS
from lib.prediction.sources import Video
from lib.preparation.file_checks import check_image
from lib.system.commands import run_command
from lib.system.files import remove_leftovers, write_json
from tests.conftest import PATIENCE, PROJECT, descendants, is_running, wait_until
from tests.test_interruption import Run, checkpoint, folder  # noqa: F401
from tools import train_val


def start_training(folder, *arguments):  # noqa: F811
    """A long training with two loader processes, in its second epoch or later."""
    run = Run(folder, "long", "trainer.max_epoch=100000", "trainer.eval_frequency=0", *arguments, workers=2)
    metrics = run.run_dir / "metrics.jsonl"
    run.wait_until(lambda: metrics.is_file() and metrics.read_text(), "epoch")
    return run, descendants(run.process.pid)


def test_a_killed_loader_process_ends_the_run_with_one_line_after_saving(folder):  # noqa: F811
    run, workers = start_training(folder)
    os.kill(workers[0], signal.SIGKILL)
    assert run.wait() == 1, run.said()
    said = run.said()
    assert "Traceback" not in said and "loader process" in said.splitlines()[-1], said
    assert f"(pid {workers[0]}) was killed by SIGKILL" in said.splitlines()[-1] and "saved as" in said
    wait_until(lambda: not any(map(is_running, workers)))
    before = checkpoint(run.run_dir)
    resumed = Run(folder, "long", "--resume", f"trainer.max_epoch={before['epoch'] + 1}", workers=2)
    assert resumed.wait() == 0, resumed.said()


def test_a_silent_loader_process_does_not_outlast_a_signal(folder):  # noqa: F811
    """A stopped process neither answers nor ends; the run saves, and ends it."""
    run, workers = start_training(folder)
    os.kill(workers[0], signal.SIGSTOP)
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait() == 143, run.said()
    assert "Traceback" not in run.said() and "continue with the same command and --resume" in run.said()
    wait_until(lambda: not any(map(is_running, workers)))


def test_shared_memory_and_open_files_are_checked_before_the_first_step(tiny_kitti, monkeypatch):
    frames, config = KITTI(tiny_kitti, "train"), Config(dataset=Dataset(batch_size=16, num_workers=2))
    for name, value, said in (
        ("free_shared_memory", 64 << 20, r"need \d+ MB of shared memory, /dev/shm has 67 MB; .*--shm-size"),
        ("allow_open_files", 40, r"need \d+ open files, the limit is 40 \(ulimit -n\)"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(loader, name, lambda *_, value=value: value)
            with pytest.raises(ValueError, match=said):
                training_loader(frames, config)
    assert training_loader(frames, config).num_workers == min(2, loader_cores())


def loader_cores() -> int:
    return len(os.sched_getaffinity(0))


def test_full_shared_memory_is_an_error_of_its_batch():
    class Full(torch.Tensor):
        def share_memory_(self):
            raise RuntimeError("unable to allocate shared memory(shm)\nmore")

    batch = Batch(torch.zeros(1).as_subclass(Full), {}, [], [])
    with pytest.raises(ConnectionError, match=r"no shared memory for a batch \(unable .*; set dataset.num_workers"):
        loader.collate_shared(lambda samples: samples, batch)


def test_the_lock_is_taken_before_a_second_process_looks(folder, capsys):  # noqa: F811
    """It must not decide "from the beginning" and then wait for the lock, or write over what the first one saved."""
    run_dir = folder / "outputs/q"
    arguments = ["--config", "tiny.yaml", "--resume", "--set", f"general.dataroot={folder / 'KITTI'}"]
    looked = []

    def look(*_):
        with pytest.raises(FileExistsError, match="another run is writing there"), lock_of_another_process(run_dir):
            pass
        looked.append(True)
        raise ValueError("seen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "find_resume_checkpoint", look)
        assert train_val.main([*arguments, "general.exp_name=q"]) == 2
    assert looked and not (folder / "outputs").exists()  # an error before the first step leaves nothing behind
    capsys.readouterr()


@contextlib.contextmanager
def lock_of_another_process(run_dir):
    code = f"from pathlib import Path\nfrom lib.system.lock import lock\nwith lock(Path({str(run_dir)!r})): pass"
    result = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    if "FileExistsError" in result.stderr:
        raise FileExistsError(result.stderr.splitlines()[-1])
    assert result.returncode == 0, result.stderr
    yield


def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    path = tmp_path / "checkpoint_last.pth"
    save_checkpoint(path, model, optimizer, 1, {}, None)
    good = path.read_bytes()
    model.weight.data[0, 0] = float("inf")
    with pytest.raises(FloatingPointError, match=r"weights\.weight is not finite any more, so checkpoint_last.pth"):
        save_checkpoint(path, model, optimizer, 2, {}, None)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]
    torch.save({"epoch": 1, "model_state": model.state_dict()}, path)
    with pytest.raises(ValueError, match=r"checkpoint_last.pth: its weights are not finite, the first is weight"):
        read_checkpoint(path)


def deep() -> list:
    value: list = []
    for _ in range(5000):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epoch": True}, "its epoch is True"),
        ({"epoch": float("inf")}, "its epoch is inf"),
        ({"camera": {"focal_net": -1.0}}, "its camera.focal_net is -1.0"),
        ({"model_state": {"a": torch.eye(2).to_sparse()}}, "its weight 'a' is no ordinary tensor"),
        ({"model_state": {"a": torch.zeros(1).expand(10**12)}}, "its weight 'a' is no ordinary tensor"),
        ({"model_state": {"bn.running_var": -torch.ones(1)}}, "its bn.running_var is negative"),
        ({"model_state": {1: torch.ones(1)}}, "not a mapping of names to tensors"),
    ],
)
def test_what_no_training_has_written_is_refused(tmp_path, change, said):
    torch.save({"epoch": 1, "model_state": {"a": torch.ones(1)}} | change, tmp_path / "c.pth")
    with pytest.raises(ValueError, match=r"c\.pth: .*" + said):
        read_checkpoint(tmp_path / "c.pth")


def test_a_deeply_nested_value_is_shown_in_short():
    with pytest.raises(ValueError, match=r"its camera\.focal_net is \[\[\[\[\.\.\.\]\]\]\]"):
        check_content({"model_state": {}, "camera": deep()})


RECORD = {"epoch": 1, "lr": 0.1, "losses": {}, "samples_per_second": 1.0}


@pytest.mark.parametrize(
    "progress",
    [
        {"frames_done": "x"}, {"frames_done": 2.5}, {"frames_done": -1}, {"images": None}, {"sums": {"depth": "a"}},
        {"sums": []}, {"skipped": [3]}, {"order": [1]}, {"record": {"epoch": 2}},
        {"record": RECORD | {"more": b""}}, {"record": RECORD | {"zero_share": 1}}, {"skipped": ("a",)},
        {"zeros": {"depth": -1}}, 5,
        {"frames_done": 9, "order": (0, 4)},
    ],
)  # fmt: skip
def test_a_progress_that_no_training_has_written_is_refused(progress):
    with pytest.raises(ValueError, match=r"c\.pth: .*progress"):
        Progress.from_checkpoint({"epoch": 1, "progress": progress}, Path("c.pth"), (0, 4))


def test_a_finished_run_that_goes_on_keeps_its_ap(tmp_path):
    record = {"epoch": 2, "lr": 0.1, "losses": {"depth": 1.5}, "samples_per_second": 3.0}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(record | {"ap": {"Car": 12.5}}) + "\n")
    for losses, kept in (({"depth": 1.5}, True), ({"depth": 1.25}, False)):
        with MetricsLog(tmp_path, 1) as log:
            log.write(record | {"losses": losses})
        assert ("ap" in read_metrics(tmp_path / "metrics.jsonl")[-1]) == kept


def test_frames_that_another_rank_skips_are_named_and_counted_once(caplog):
    other = [("000007", "cut off")]

    class TwoRanks(ProcessGroup):
        def gather_objects(self, item):
            return [item, (other, len(other))]

    progress, skipped = Progress(), SkippedFrames(1000, TwoRanks())
    skipped.record([Unreadable("000003", "missing")], progress)
    skipped.merge(progress)
    other = []
    skipped.merge(progress)
    assert progress.skipped == ["000003", "000007"] and progress.skipped_now == 2
    assert caplog.text.count("frame 000007 is skipped: cut off") == 1 == caplog.text.count("frame 000003 is skipped")


def jpeg() -> bytes:
    image = np.random.default_rng(0).integers(0, 255, (96, 320, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", cv2.blur(image, (5, 5)))[1].tobytes()


@pytest.mark.parametrize("name", ["a zeroed block", "two thirds zeroed", "cut off, with an end mark"])
def test_a_damaged_jpeg_is_refused(tmp_path, name):
    """libjpeg only warns, and OpenCV returns gray pixels."""
    whole = jpeg()
    half, third = len(whole) // 2, len(whole) // 3
    damaged = {
        "a zeroed block": whole[:half] + bytes(400) + whole[half + 400 :],
        "two thirds zeroed": whole[:third] + bytes(len(whole) - third - 2) + whole[-2:],
        "cut off, with an end mark": whole[:half] + b"\xff\xd9",
    }
    path = tmp_path / "000000.jpg"
    path.write_bytes(whole)
    expected = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(read_image(path), expected) and check_image(path) == ([], (320, 96))
    path.write_bytes(damaged[name])
    assert cv2.imread(str(path)) is not None
    with pytest.raises(ValueError, match=r"000000\.jpg: this JPEG is damaged \(.*\); fetch or unpack it again"):
        read_image(path)
    assert [fault.kind for fault in check_image(path)[0]] == ["unreadable image"]


def test_a_jpeg_with_an_odd_header_is_read(tmp_path):
    """libjpeg warns of an unknown revision of JFIF; all pixels are there."""
    whole, path = jpeg(), tmp_path / "a.jpg"
    place = whole.index(b"JFIF") + 5
    path.write_bytes(whole[:place] + b"\x02\x01" + whole[place + 2 :])
    with pytest.raises(ValueError, match="JFIF revision"):
        simplejpeg.decode_jpeg(path.read_bytes(), strict=True)
    assert np.array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))


def png_that_states(width: int, height: int, pixels: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("size", [(0, 0), (5, 0), (2**32 - 1, 2**32 - 1), (25000, 25000)])
def test_an_image_with_a_senseless_size_is_refused_by_its_header(tiny_kitti, size):
    path = tiny_kitti / "training/image_2/000000.png"
    path.write_bytes(png_that_states(*size))
    config = Config(General(dataroot=str(tiny_kitti)), Dataset(num_workers=0))
    with pytest.raises(ValueError, match=r"000000\.png: "):
        build_dataset(config, "train")
    faults, _ = check_image(path, Dataset.max_image_pixels)
    assert [fault.kind for fault in faults] == ["unreadable image"]


def test_the_limit_of_pixels_can_be_raised(tiny_kitti):
    general = General(dataroot=str(tiny_kitti))
    with pytest.raises(ValueError, match=r"1242 x 375 pixels, more than 1000; dataset.max_image_pixels"):
        build_dataset(Config(general, Dataset(max_image_pixels=1000)), "train")
    assert len(build_dataset(Config(general, Dataset(max_image_pixels=1242 * 375)), "train")) == 4


@pytest.mark.parametrize(
    ("depths", "index"), [((1 << 20,), (4, 5)), ((3,), (1 << 14, 1 << 14)), ((3,), (4, 5)), ((1, 1), (4, 5))]
)
def test_a_depth_map_is_checked_before_it_is_decompressed(tmp_path, monkeypatch, depths, index):
    path, kind = tmp_path / "000000.npz", np.uint8 if depths != (3,) or index != (4, 5) else "S8000"
    np.savez_compressed(path, depths=np.zeros(depths, np.float32), index=np.zeros(index, kind))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("decompressed"))
    with pytest.raises(ValueError, match=r"000000\.npz: "):
        read_object_depth(path, (5, 4))


@pytest.mark.parametrize(("place", "value"), [(8, 1e30), (10, 1e-46), (13, 1e39), (11, -1001.0), (6, 1e30)])
def test_senseless_labels_are_refused_in_training_too(tiny_kitti, place, value):
    path = tiny_kitti / "training/label_2/000000.txt"
    lines = path.read_text().splitlines()
    columns = lines[1].split()
    columns[place] = str(value)
    path.write_text("\n".join([lines[0], " ".join(columns), *lines[2:]]))
    with pytest.raises(ValueError, match=r"000000\.txt, line 2: (size|position|2D box) .*expected"):
        KITTI(tiny_kitti, "train")


def test_names_that_are_not_utf8(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/j\xff.jpg"))
    path.write_bytes(jpeg())
    assert read_image(path).shape == (96, 320, 3)
    video = path.with_suffix(".mp4")
    video.write_bytes(b"x")
    with pytest.raises(ValueError, match="the name of a video must be UTF-8 text"):
        Video.from_file(video)


@pytest.mark.parametrize(
    "text",
    [
        "x: " + "[" * 5000,
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)}, *{chr(97 + k)}]\n" for k in range(15)),
        "general: {exp_name: " + "x" * 70000 + "}",
        "trainer: {max_epoch: 0x" + "f" * 9000 + "}",
        "trainer: {max_epoch: [" + "x" * 50000 + "]}",
    ],
    ids=["deep", "aliases", "long", "digits", "value"],
)
def test_a_hostile_configuration_gives_a_short_error(tmp_path, text):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.yaml: ") as caught:
        load_config(path)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_a_user_that_does_not_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"general.dataroot: '~nosuchuser/x': there is no such user"):
        build_dataset(Config(General(dataroot="~nosuchuser/x")), "train")


def test_leftovers_are_found_behind_a_runs_own_links_only_and_left_alone_while_they_are_new(tmp_path):
    for name in ("elsewhere", "run", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "run/checkpoints").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run/data").symlink_to(tmp_path / "data")
    leftover, others = tmp_path / "elsewhere/.a.pth.123.tmp", tmp_path / "data/.b.npy.456.tmp"
    leftover.touch()
    others.touch()
    remove_leftovers(tmp_path / "run", min_age=3600)
    assert leftover.exists()
    remove_leftovers(tmp_path / "run")
    assert not leftover.exists() and others.exists()


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/a\.json'"):
        write_json(tmp_path / "a.json", {}, sync=True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [MemoryError("of 8 GiB"), RuntimeError("x: can't allocate memory: 8 GiB\nmore")])
def test_too_little_memory_is_one_line(capsys, error):
    def command():
        raise error

    assert run_command(command) == 1
    assert re.fullmatch(r"error: the memory does not suffice \(.*8 GiB\); .*\n", capsys.readouterr().err)


def test_a_training_outlasts_the_reader_of_its_output(folder):  # noqa: F811
    """As with ``2>&1 | head -1``; all messages are in train.log."""
    command = [sys.executable, str(PROJECT / "tools/train_val.py"), "--config", "tiny.yaml", "--set"]
    settings = ["general.exp_name=q", f"general.dataroot={folder / 'KITTI'}", "trainer.max_epoch=2"]
    read, write = os.pipe()
    process = subprocess.Popen([*command, *settings], cwd=folder, stdout=write, stderr=write)
    os.close(write)
    os.close(read)
    assert process.wait(PATIENCE) == 0
    log = (folder / "outputs/q/train.log").read_text()
    assert "cannot be written to any more" in log and "epoch 2/2" in log and "all figures: " in log


def test_a_killed_renderer_is_one_line_and_leaves_no_process(tmp_path):
    slow = (  # a pool that ends its futures slowly: the renderer may not cancel one in the meantime
        "import runpy, sys, time\nfrom concurrent.futures import Future\nset_exception = Future.set_exception\n"
        "Future.set_exception = lambda self, error: (time.sleep(0.001), set_exception(self, error))\n"
        "sys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    )
    script = [str(PROJECT / "tools/make_synthetic_kitti.py"), "--out", str(tmp_path / "d")]
    counts = ["--train", "5000", "--val", "4", "--size", "448x128", "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-c", slow, *script, *counts], stderr=subprocess.PIPE, text=True)
    images = tmp_path / "d/training/image_2"
    wait_until(lambda: images.is_dir() and any(images.glob("*.png")), process)
    children = descendants(process.pid)
    workers = [k for k in children if b"spawn_main" in Path(f"/proc/{k}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    said = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 1 and "Traceback" not in said, said
    assert "a process was killed, maybe since memory ran out; repeat with --force" in said.splitlines()[-1]
    wait_until(lambda: not any(map(is_running, children)))


def test_a_stopped_loader_process_does_not_outlast_the_run():
    """multiprocessing waits without end for its children when Python ends."""
    code = (
        "import os, signal, torch\nfrom lib.datasets.loader import WatchedLoader, init_worker\n"
        "loader = WatchedLoader(torch.arange(4), num_workers=1, persistent_workers=True, worker_init_fn=init_worker)\n"
        "assert len(list(loader)) == 4\nos.kill(loader.processes[0].pid, signal.SIGSTOP)\n"
        "print(loader.processes[0].pid)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert result.returncode == 0 and not is_running(int(result.stdout)), result.stderr


def sleep_for_ever():
    signal.pause()


def test_a_worker_whose_end_is_not_known_yet_is_named():
    """Its pipe closes before the system tells its end: reading from it gives EOFError or 'Connection reset'."""
    for error in (EOFError(), ConnectionResetError(104, "Connection reset by peer")):
        process = multiprocessing.get_context("spawn").Process(target=sleep_for_ever, daemon=True)
        process.start()
        watched = loader.WatchedLoader([1], num_workers=1)
        watched.processes = (process,)

        def fail(error=error, process=process):
            os.kill(process.pid, signal.SIGKILL)
            raise error

        with pytest.raises(ConnectionError, match=rf"loader process \(pid {process.pid}\) was killed by SIGKILL"):
            watched._await(fail)


def test_a_lock_that_a_killed_worker_held_blocks_nothing():
    """torch waits for it without end when it shuts its workers down."""
    code = (
        "import os, signal, torch\nfrom lib.datasets.loader import WatchedLoader, init_worker\n"
        "loader = WatchedLoader(torch.arange(40), num_workers=2, persistent_workers=True, worker_init_fn=init_worker)\n"
        "batches = iter(loader)\nnext(batches)\nloader._iterator._workers_done_event._cond.acquire()\n"
        "os.kill(loader.processes[0].pid, signal.SIGKILL)\n"
        "try:\n    list(batches)\nexcept ConnectionError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "was killed by SIGKILL" in result.stdout


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_commands_run_with_closed_output(tmp_path, closed):
    script = shlex.join([sys.executable, str(PROJECT / "tools/describe_config.py"), "--out", "c.md"])
    assert subprocess.run(["sh", "-c", f"{script} {closed}"], cwd=tmp_path, check=False).returncode == 0
    assert (tmp_path / "c.md").read_bytes() == (PROJECT / "docs/configuration.md").read_bytes()


def test_outputs_that_are_not_finite_are_an_error():
    found = {name: torch.ones(1, 1) for name in DECODER_INPUTS} | {"size_3d": torch.full((1, 1), math.inf)}
    frame = SimpleNamespace(frame_id="000007")
    batch = InferenceBatch(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), [frame], None)

    class Model(torch.nn.Module):
        def forward(self, images, topk):
            return found

    with pytest.raises(FloatingPointError, match="output size_3d is not finite: frames 000007"):
        list(detect(Model(), [batch], 1, torch.device("cpu")))


def test_a_bomb_is_refused_wherever_an_image_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png_that_states(20000, 20000))
    with pytest.raises(ValueError, match=r"a\.png: its header states 20000 x 20000 pixels, more than"):
        read_image(path)
