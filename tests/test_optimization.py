"""Keys that the official code does not have: loss weights, cosine decay, clipping, accumulation, moving average."""

import re
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lib.config import Config, General, Losses, LrScheduler, Model, Optimizer, Trainer, dump_config, parse_config
from lib.engine import trainer
from lib.engine.checkpoint import read_checkpoint
from lib.engine.device import describe_memory
from lib.engine.optimizer import build_optimizer, learning_rate
from lib.engine.progress import Pace, Progress
from lib.engine.run_folder import warn_of_differences
from lib.losses import LOSSES, Criterion
from lib.models import build_model
from lib.structures import FrameInfo
from tools.bench.network import make_random_targets

CONFIG = Config(
    general=General(qi=True, obj_depth=True, rad=60.0),
    model=Model(backbone="dla34_narrow"),
    optimizer=Optimizer(type="sgd", lr=0.001, momentum=0.0, weight_decay=0.0),
)


def make_trainer(config, run_dir=Path()):
    torch.manual_seed(0)
    model = build_model(config).double()
    criterion = Criterion(config.general, config.losses)
    optimizer = build_optimizer(model, config.optimizer)
    loader = torch.utils.data.DataLoader(range(3))
    return trainer.Trainer(model, criterion, optimizer, loader, config, run_dir, torch.device("cpu"), lambda *_: {})


def make_batch(number):
    rng = np.random.default_rng(number)
    images = torch.from_numpy(rng.integers(0, 256, (number, 3, 64, 96), dtype=np.uint8))
    return images, make_random_targets(rng, number, 24, 16), [FrameInfo(f"{k}", (96, 64), None) for k in range(number)]


def with_trainer(**values):
    return replace(CONFIG, trainer=Trainer(**values))


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def test_cosine_decay_is_that_of_pytorch():
    config = LrScheduler(type="cosine", warmup_epochs=3)
    rates = [learning_rate(epoch, 0.1, config, 20) for epoch in range(20)]
    assert rates[:3] == [learning_rate(epoch, 0.1, LrScheduler(warmup_epochs=3), 20) for epoch in range(3)]
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17)
    for epoch in range(3, 20):
        assert rates[epoch] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_each_loss_has_a_weight_by_its_name():
    assert [each.name for each in fields(Losses)] == list(LOSSES)
    images, targets, _ = make_batch(2)
    outputs = make_trainer(CONFIG).model(images, targets["indices"])
    plain = Criterion(CONFIG.general)(outputs, targets)
    weights = Losses(**{name: k / 2 for k, name in enumerate(LOSSES)})
    weighted = Criterion(CONFIG.general, weights)(outputs, targets)
    assert {n: v.item() for n, v in weighted.items()} == pytest.approx(
        {name: plain[name].item() * k / 2 for k, name in enumerate(LOSSES)}
    )
    with pytest.raises(ValueError, match=r"losses\.depth must be >= 0, got -1"):
        Losses(depth=-1)
    with pytest.raises(ValueError, match="losses must be above 0 for at least one term"):
        Losses(**dict.fromkeys(LOSSES, 0.0))


def test_the_weights_of_version_01_are_the_same_keys():
    config = parse_config({"general": {"qi_weight": 0.5, "obj_depth_weight": 2}})
    assert config.losses == Losses(quasi_isometric=0.5, obj_depth=2)
    with pytest.raises(ValueError, match=r"general\.qi_weight=0\.5 contradicts losses\.quasi_isometric=3"):
        parse_config({"losses": {"quasi_isometric": 3}, "general": {"qi_weight": 0.5}})


@pytest.mark.parametrize(("images", "parts"), [(4, 2), (3, 2), (5, 3), (1, 2)])
def test_accumulated_gradients_are_the_sum_over_the_parts(images, parts):
    """Against autograd on each part by itself; with one image, the second part is empty."""
    accumulating = make_trainer(with_trainer(accumulate=parts))
    plain = make_trainer(CONFIG)
    batch, targets, frames = make_batch(images)
    terms = accumulating.step(batch, targets, frames).read()[0]
    expected = dict.fromkeys(terms, 0.0)
    for indices in torch.arange(images).tensor_split(parts):
        if len(indices):
            part = {name: value[indices] for name, value in targets.items()}
            losses = plain.criterion(plain.model(batch[indices], part["indices"]), part)
            share = len(indices) / images
            (share * sum(losses.values())).backward()
            for name, value in losses.items():
                expected[name] += share * value.item()
                expected["total"] += share * value.item()
    assert terms == pytest.approx(expected)
    for (name, ours), theirs in zip(accumulating.model.named_parameters(), plain.model.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-7, atol=1e-12)  # shares are float32


def test_more_parts_than_images_are_refused():
    with pytest.raises(ValueError, match=r"trainer\.accumulate must be at most dataset\.batch_size \(16\), got 17"):
        with_trainer(accumulate=17)


def test_gradients_are_clipped_to_the_norm():
    """The step of plain SGD is the learning rate times the gradient."""
    batch = make_batch(2)
    for limit in (0.5, 1e9):
        clipped = make_trainer(replace(CONFIG, optimizer=replace(CONFIG.optimizer, clip_grad_norm=limit)))
        plain = make_trainer(CONFIG)
        before = flat(plain.model.parameters())
        steps = []
        for each in (clipped, plain):
            each.step(*batch)
            steps.append(flat(each.model.parameters()) - before)
        longest = steps[1].norm().item() / 0.001
        assert longest > 1
        torch.testing.assert_close(steps[0], steps[1] * min(1, limit / longest), rtol=1e-5, atol=1e-12)


def test_the_moving_average_is_evaluated_saved_and_continued(tmp_path):
    averaging, plain = make_trainer(with_trainer(ema=0.75), tmp_path), make_trainer(CONFIG, tmp_path)
    batch, average = make_batch(2), flat(plain.model.parameters())
    for _ in range(4):
        averaging.step(*batch)
        plain.step(*batch)
        weights = flat(plain.model.parameters())
        average = 0.75 * average + 0.25 * weights
    assert torch.equal(flat(averaging.model.parameters()), weights)
    torch.testing.assert_close(flat(averaging.synchronized_model().parameters()), average)
    assert plain.synchronized_model() is plain.model
    statistics = [flat(each.model.buffers()) for each in (averaging, plain)]
    assert torch.equal(flat(averaging.evaluated_model.buffers()), statistics[0]) and torch.equal(*statistics)
    path = averaging.save("checkpoint_last.pth")
    state = read_checkpoint(path)
    for key, model in (("model_state", averaging.evaluated_model), ("model_state_without_ema", averaging.model)):
        assert all(torch.equal(value, model.state_dict()[name]) for name, value in state[key].items())
    continued = make_trainer(with_trainer(ema=0.75), tmp_path)
    continued.resume(path)
    without = make_trainer(CONFIG, tmp_path)
    without.resume(path)
    for each in (averaging, continued, without):
        each.step(*batch)
    assert torch.equal(flat(continued.evaluated_model.parameters()), flat(averaging.evaluated_model.parameters()))
    assert torch.equal(flat(without.evaluated_model.parameters()), flat(averaging.model.parameters()))
    assert "model_state_without_ema" not in read_checkpoint(without.save("plain.pth"))


def test_a_resumed_run_names_the_keys_that_change_its_training(caplog):
    warn_of_differences(
        Path("x.pth"), dump_config(with_trainer(ema=0.9, max_epoch=3)), with_trainer(accumulate=2), None
    )
    assert "trainer.ema" in caplog.text and "trainer.accumulate" in caplog.text and "max_epoch" not in caplog.text
    cosine = replace(with_trainer(), lr_scheduler=LrScheduler(type="cosine"))
    warn_of_differences(Path("x.pth"), dump_config(with_trainer(max_epoch=3)), cosine, None)
    assert "trainer.max_epoch: 3; now it is 140" in caplog.text


def test_a_moving_average_can_begin_in_a_run_without_one(tmp_path):
    plain, averaging = make_trainer(CONFIG, tmp_path), make_trainer(with_trainer(ema=0.5), tmp_path)
    batch = make_batch(2)
    plain.step(*batch)
    averaging.resume(plain.save("checkpoint_last.pth"))
    before = flat(plain.model.parameters())
    averaging.step(*batch)
    expected = (before + flat(averaging.model.parameters())) / 2
    torch.testing.assert_close(flat(averaging.evaluated_model.parameters()), expected)


def test_elapsed_and_remaining_time(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    progress = Progress(epoch=2, order=(1, 40))
    pace = Pace(progress, epochs=10, interval=50)
    assert pace.describe(progress) == "elapsed 0:00:00, remaining 0:00:00"  # nothing is known yet
    now[0], progress.frames_done = 130.0, 20  # half an epoch
    assert pace.describe(progress) == "elapsed 0:00:30, remaining 0:07:30"  # 7.5 epochs of a minute
    caplog.set_level("DEBUG")
    pace.log_inside_epoch(progress, "depth 1.0")
    assert not caplog.messages  # the last line is not old enough
    now[0] = 200.0
    pace.log_inside_epoch(progress, "depth 1.0")
    assert caplog.messages == ["epoch 3/10, frame 20 of 40  depth 1.0  elapsed 0:01:40, remaining 0:25:00"]


def test_memory_is_described():
    assert re.fullmatch(r", peak memory \d+\.\d GB", describe_memory(torch.device("cpu")))
