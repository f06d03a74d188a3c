"""Training and inference of the network: this code against the same network run plainly, in turn.

    python tools/bench/network.py                             # DLA-34, 1280 x 384, batch 2, both extra losses
    python tools/bench/network.py --batch 16 --json gpu.json  # on a GPU, where there is one

Plain is the float32 step in the way of the official code: contiguous tensors, every head on the whole map, BatchNorm
as it stands. Both sides start from the same weights and see the same batch, each in a process of its own. Memory is
the peak of that process less what it had before the first call.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import CLASS_NAMES, Config, Dataset, General, Model, Trainer
from lib.datasets.targets import empty_targets
from lib.engine.device import choose_device
from lib.engine.optimizer import build_optimizer
from lib.engine.step import Figures, Parts, compiled, to_channels_last, train_step
from lib.losses import Criterion
from lib.models import build_model
from lib.models.folding import fold_batch_norm
from lib.ops.gaussian import draw_gaussian
from lib.postprocess import DecodeSettings, decode_detections
from lib.structures import Calibration, FrameInfo
from tools.bench.plain import DenseHeads
from tools.bench.report import Report, time_in_turn
from tools.bench.side import Side

P2 = "721.5377 0 609.5593 44.85728 0 721.5377 172.854 0.2163791 0 0 1 0.002745884"
OBJECTS = 6
"""of an image, about KITTI's mean"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--resolution", type=int, nargs=2, default=(1280, 384), metavar=("W", "H"))
    parser.add_argument("--backbone", default="dla34")
    parser.add_argument("--repeats", type=int, default=5, help="the median counts")
    parser.add_argument("--amp", choices=("off", "bf16"), default="off", help="of this code's training step")
    parser.add_argument("--only", choices=("training", "inference", "decoding", "memory"))
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    report = Report(f"{args.backbone}, {args.resolution[0]} x {args.resolution[1]}, batch {args.batch}, amp {args.amp}")
    for kind in ("training", "inference"):
        if args.only not in (None, kind, "memory"):
            continue
        sides = {name: Side(side, config_for(args), args.batch, name) for name in (f"plain_{kind}", kind)}
        if args.only != "memory":
            seconds = time_in_turn(sides, args.repeats)
            report.add_sides(seconds, "s/image", args.batch, {kind: 2.0})
        plain, ours = (each.peak() / args.batch for each in sides.values())
        report.add(f"peak memory, plain_{kind}", plain, "MB/image")
        report.add(f"peak memory, {kind}", ours, "MB/image", plain / ours, 1.0)
        for each in sides.values():
            each.close()
    if args.only in (None, "decoding"):
        decoding = {"decoding of 50 detections": Bench(config_for(args), args.batch).decoding()}
        report.add_sides(time_in_turn(decoding, 4 * args.repeats), "ms/image", args.batch, {})
    return report.show(args.json)


def config_for(args: argparse.Namespace) -> Config:
    """Both extra losses; everything else as published."""
    return Config(
        general=General(qi=True, obj_depth=True),
        dataset=Dataset(resolution=tuple(args.resolution), batch_size=args.batch),
        model=Model(backbone=args.backbone, pretrained=False),
        trainer=Trainer(amp=args.amp if args.amp != "off" else False),
    )


class Bench:
    """A batch, and the two sides that work on it."""

    def __init__(
        self, config: Config, batch: int, objects: int = OBJECTS, device: torch.device | None = None
    ) -> None:
        self.config, self.batch = config, batch
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rng = np.random.default_rng(0)
        width, height = config.dataset.resolution
        images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.normalised = ((self.images.float() - 128) / 60).contiguous()
        self.targets = random_targets(rng, batch, width // 4, height // 4, objects)
        if self.device.type == "cuda":  # as the loader hands them over
            self.images = self.images.pin_memory()
            self.targets = {name: value.pin_memory() for name, value in self.targets.items()}
        frames = [f"{k:06d}" for k in range(batch)]
        calibration = Calibration(np.array(P2.split(), dtype=float))
        self.frames = [FrameInfo(frame_id, (1242, 375), calibration) for frame_id in frames]

    def training(self) -> Callable[[], Any]:
        """This code's step, and waiting for its figures."""
        start = self.start_step()
        return lambda: start().read()

    def start_step(self) -> Callable[[], Figures]:
        """This code's step, whose figures are still on their way."""
        torch.manual_seed(0)
        model = build_model(self.config)
        to_channels_last(model, self.device)
        optimizer = build_optimizer(model, self.config.optimizer, fused=self.device.type == "cuda")
        criterion = Criterion(self.config.general)
        parts = Parts(model, criterion, optimizer, None, self.device, self.config, Path())  # type: ignore[arg-type]
        model.train()
        forward = compiled(model) if self.config.trainer.compile else model
        return lambda: train_step(parts, forward, 0, self.images, self.targets, self.frames)

    def plain_training(self) -> Callable[[], Any]:
        """The plain step."""
        torch.manual_seed(0)
        model = DenseHeads(self.config).to(self.device).train()
        optimizer = build_optimizer(model, self.config.optimizer)
        criterion = Criterion(self.config.general)

        def step() -> float:
            targets = {name: value.to(self.device) for name, value in self.targets.items()}
            terms = criterion(model(self.normalised.to(self.device), targets["indices"]), targets)
            values = {name: value.item() for name, value in terms.items()}
            total = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            return sum(values.values())

        return step

    def inference(self) -> Callable[[], Any]:
        """This code's forward pass and decoding."""
        model = self.folded_network()
        settings = DecodeSettings(CLASS_NAMES, self.config.dataset.resolution, 0.0)

        @torch.inference_mode()
        def run() -> Any:
            return decode_detections(model(self.images.to(self.device)), self.frames, settings)

        return run

    def plain_inference(self) -> Callable[[], Any]:
        """The plain forward pass, and the same decoding."""
        model = self.plain_network()
        settings = DecodeSettings(CLASS_NAMES, self.config.dataset.resolution, 0.0)

        @torch.no_grad()
        def run() -> Any:
            return decode_detections(model(self.normalised.to(self.device)), self.frames, settings)

        return run

    def folded_network(self) -> nn.Module:
        """This code's network for inference, on the device."""
        torch.manual_seed(0)
        model = fold_batch_norm(build_model(self._without_obj_depth()))
        to_channels_last(model, self.device)
        return model

    def plain_network(self) -> nn.Module:
        """The same, with the same weights, run plainly; takes ``normalised`` images."""
        torch.manual_seed(0)
        return DenseHeads(self._without_obj_depth()).to(self.device).eval()

    def _without_obj_depth(self) -> Config:
        """The head is for training only."""
        return replace(self.config, general=replace(self.config.general, obj_depth=False))

    def decoding(self) -> Callable[[], Any]:
        """Outputs on the host -> objects, 50 an image."""
        rng = np.random.default_rng(1)
        shapes = {"offset_2d": 2, "size_2d": 2, "depth": 2, "offset_3d": 2, "heading": 24}
        outputs = {name: torch.from_numpy(rng.normal(size=(self.batch, 50, n))) for name, n in shapes.items()}
        outputs["size_3d"] = torch.rand(self.batch, 50, 3) + 1
        outputs["scores"] = torch.rand(self.batch, 50)
        outputs["classes"] = torch.randint(0, 3, (self.batch, 50))
        outputs["indices"] = torch.randint(0, 96 * 320, (self.batch, 50))
        settings = DecodeSettings(CLASS_NAMES, (1280, 384), 0.0)
        return lambda: decode_detections(outputs, self.frames, settings)


def random_targets(
    rng: np.random.Generator, batch: int, width: int, height: int, objects: int = OBJECTS
) -> dict[str, Tensor]:
    """Targets of images with so many objects each, and a depth map that covers a fifth."""
    images = []
    for _ in range(batch):
        targets = empty_targets(width, height)
        for slot in range(objects):
            x, y = int(rng.integers(width)), int(rng.integers(height))
            draw_gaussian(targets["heatmap"][1], (x, y), 5)
            targets["indices"][slot] = y * width + x
            for name in ("offset_2d", "size_2d", "offset_3d", "size_3d", "src_size_3d"):
                targets[name][slot] = rng.uniform(0.5, 3, targets[name].shape[1])
            targets["depth"][slot] = rng.uniform(3, 60)
            targets["mask_2d"][slot] = targets["mask_3d"][slot] = True
        depth_map = np.where(rng.random((1, height, width)) < 0.2, rng.uniform(3, 60), 0).astype(np.float32)
        images.append(targets | {"obj_depth": depth_map})
    return {name: torch.from_numpy(np.stack([p[name] for p in images])) for name in images[0]}


def side(config: Config, batch: int, name: str) -> Callable[[], Any]:
    """What a process of its own runs: a method of :class:`Bench`."""
    bench = Bench(config, batch)
    if not name.startswith("plain"):
        choose_device([0])  # as the command does it, with what that sets for the CPU
    run = getattr(bench, name)()

    def once() -> None:
        run()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()

    return once


if __name__ == "__main__":
    sys.exit(main())
