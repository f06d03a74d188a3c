"""What a GPU would run, on a machine without one: tensors of FakeTensorMode have a device and a shape, and no content.

An operation on tensors of two devices is an error there. ``NoWaiting`` adds what makes the host wait for the GPU.
Autograd's backward pass and the optimizer do not run on such tensors.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import v2

from lib.config import Trainer as TrainerConfig
from lib.engine import trainer
from lib.engine.distributed import ProcessGroup
from lib.engine.optimizer import build_optimizer
from lib.engine.step import CompiledForward
from lib.losses import Criterion
from lib.models import build_model
from lib.models.folding import fold_batch_norm
from lib.postprocess import DECODER_INPUTS
from tests.test_optimization import CONFIG, make_batch
from tools.bench.memory import LiveMemory, compute_memory, replace_tensors
from tools.bench.network import Bench, make_config

TORCH = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
pytestmark = pytest.mark.skipif(TORCH < (2, 14), reason="fake CUDA tensors abort in torch 2.6")

CUDA = torch.device("cuda", 0)
READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "_unique2")


class NoWaiting(TorchDispatchMode):
    """AssertionError for an operation that makes the host wait for a GPU, or a GPU for the host's memory."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::").partition(".")[0]
        sources = [each for each in args if isinstance(each, torch.Tensor)]
        if name == "copy_":  # (target, source, non_blocking)
            crosses, waits = args[0].device != args[1].device, len(args) < 3 or not args[2]
        else:
            crosses = name == "_to_copy" and result.device != args[0].device
            waits = not (kwargs or {}).get("non_blocking", False)
        assert not (crosses and waits), f"{name} from {sources[-1].device} waits"
        assert name not in READS or not any(each.is_cuda for each in sources), f"{name} reads from a GPU"
        return result


class Machine:
    """Fake tensors on a GPU, and a Trainer with them."""

    def __init__(self, patch):
        self.mode, self.patch = FakeTensorMode(), patch

    def put(self, tensor):
        fake = self.mode.from_tensor(tensor)
        with self.mode:
            return fake.to(CUDA)

    def put_model(self, model):
        model.to(memory_format=torch.channels_last)
        replace_tensors(model, self.put)
        return model

    def step(self, criterion, config):
        """Losses of a step of the Trainer, without backward pass and optimizer; nothing may wait in it."""
        images, targets, frames = make_batch(3)
        model = self.put_model(build_model(config))
        optimizer = build_optimizer(model, config.optimizer)
        optimizer.step = lambda: None
        average = self.put_model(build_model(config))  # such tensors cannot be copied
        self.patch.setattr(trainer, "copy", SimpleNamespace(deepcopy=lambda model: average))
        images, targets = self.mode.from_tensor(images), {k: self.mode.from_tensor(v) for k, v in targets.items()}
        loader = torch.utils.data.DataLoader(range(3))
        with self.mode, NoWaiting():
            own = trainer.Trainer(model, criterion, optimizer, loader, config, Path(), CUDA, lambda *_: {})
            return own.step(images, targets, frames)


@pytest.fixture
def machine(monkeypatch):
    """What needs a driver, or values on the host, is replaced."""
    factors = {"brightness_factor": 1.1, "contrast_factor": 1.1, "saturation_factor": 0.9, "hue_factor": 0.05}
    monkeypatch.setattr(v2.ColorJitter, "make_params", lambda *_: factors | {"fn_idx": range(4)})
    monkeypatch.setattr(trainer, "to_channels_last", lambda *_: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "backward", lambda self: None)
    monkeypatch.setattr(torch.cuda, "Event", MagicMock())
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    return Machine(monkeypatch)


@pytest.mark.parametrize("amp", [False, "bf16"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_stays_on_the_gpu_and_reads_nothing(machine, amp, parts):
    config = replace(CONFIG, trainer=TrainerConfig(amp=amp, accumulate=parts, ema=0.9))
    config = replace(config, general=replace(config.general, qi_fit_scale=parts == 2))
    config = replace(config, dataset=replace(config.dataset, color_jitter=(0.2, 0.2, 0.2, 0.1)))
    seen = {}

    def criterion(outputs, targets):
        seen.update(outputs)
        losses = Criterion(config.general)(outputs, targets)
        assert len(losses) == 9 and all(loss.device == CUDA for loss in losses.values())
        return losses

    losses = machine.step(criterion, config)
    assert losses.values.device.type == "cpu" and len(losses.values) == 10 + 3
    assert seen["features"].dtype == (torch.bfloat16 if amp else torch.float32)
    assert seen["depth"].dtype == torch.float32 and seen["depth"].device == CUDA


PLANTED = {
    "a tensor on the host": (lambda o: o["depth"] * torch.ones(3, 50, 2), RuntimeError, "cuda"),
    "cpu()": (lambda o: o["depth"].cpu(), AssertionError, "_to_copy from cuda:0 waits"),
    "item()": (lambda o: o["depth"].sum().item(), Exception, "_local_scalar_dense"),
    "a mask": (lambda o: o["depth"][o["depth"] > 0], Exception, "nonzero"),
    "to(), blocking": (lambda o: torch.ones(3).to(CUDA), AssertionError, "_to_copy from cpu waits"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_found(machine, name):
    fault, error, said = PLANTED[name]

    def criterion(outputs, targets):
        fault(outputs)
        return Criterion(CONFIG.general)(outputs, targets)

    with pytest.raises(error, match=said):
        machine.step(criterion, CONFIG)


def test_inference_stays_on_the_gpu_until_the_outputs_are_decoded(machine, monkeypatch):
    config = replace(CONFIG, general=replace(CONFIG.general, obj_depth=False))
    model = machine.put_model(fold_batch_norm(build_model(config)))
    images = machine.mode.from_tensor(make_batch(2)[0])
    with machine.mode, NoWaiting(), torch.no_grad():
        outputs = model(images.to(CUDA, non_blocking=True), topk=7)
    assert all(outputs[name].device == CUDA and outputs[name].shape[:2] == (2, 7) for name in DECODER_INPUTS)


def test_sync_bn_does_not_replace_layers_that_do_more(machine):
    class WithActivation(torch.nn.BatchNorm2d):
        pass

    model = machine.put_model(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), WithActivation(4)))
    with pytest.raises(ValueError, match=r"trainer\.sync_bn must be false .*: SyncBatchNorm is no WithActivation"):
        ProcessGroup(0, 2).wrap(model, sync_bn=True)


# --- torch.compile, traced without a compiler


@pytest.mark.parametrize("amp", [False, True])
def test_training_is_one_graph_for_each_batch_size_of_an_epoch(monkeypatch, amp):
    """No graph break (fullgraph), and no compilation in a second epoch; the last batch is smaller."""
    counter, compile_module = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda m, **o: compile_module(m, backend=counter, fullgraph=True, **o))
    torch._dynamo.reset()
    forward = CompiledForward(build_model(CONFIG)).train()
    for _ in range(2):
        for size in (4, 4, 3):
            images, targets, _ = make_batch(size)
            with torch.autocast("cpu", torch.bfloat16, enabled=amp):
                outputs = forward(images, targets["indices"])
            assert outputs["depth"].shape == (size, 50, 2)
        assert counter.frame_count == 2


def test_inference_is_one_graph():
    counter = CompileCounter()
    torch._dynamo.reset()
    forward = torch.compile(fold_batch_norm(build_model(CONFIG)), backend=counter, fullgraph=True)
    with torch.no_grad():
        for _ in range(2):
            assert forward(make_batch(2)[0])["scores"].shape == (2, 50)
    assert counter.frame_count == 1


# --- memory


def test_computed_memory_is_that_of_real_tensors():
    """The same step with real tensors, counted in the same way."""
    config = make_config("dla34_narrow", (320, 96), 2)
    computed = compute_memory(config)
    bench, live = Bench(config, torch.device("cpu")), LiveMemory()
    own = bench.trainer()
    with live:
        live.add([list(own.model.parameters()), list(own.model.buffers()), bench.images, bench.targets])
        for _ in range(2):
            own.step(bench.images, bench.targets, bench.frames)
    assert computed.peak == pytest.approx(live.peak, rel=0.01)
    assert computed.parameters == sum(p.nbytes for p in own.model.parameters())
    trained = sum(p.nbytes for p in own.model.parameters() if p.grad is not None)
    assert computed.gradients == trained
    assert computed.optimizer == pytest.approx(2 * trained, rel=1e-3)


def test_parts_and_bf16_need_less_memory():
    config = make_config("dla34_narrow", (320, 96), 4)
    peaks = {
        (amp, parts): compute_memory(replace(config, trainer=replace(config.trainer, amp=amp, accumulate=parts))).peak
        for amp in (False, "bf16")
        for parts in (1, 2)
    }
    assert peaks[False, 2] < 0.7 * peaks[False, 1] and peaks["bf16", 1] < 0.7 * peaks[False, 1]
