"""Training and inference of the network: this code and the same network run plainly, measured alternately.

    python tools/bench/network.py                             # DLA-34, 1280 x 384, batch 2, both extra losses
    python tools/bench/network.py --batch 16 --json gpu.json  # on a GPU, if there is one

Plain is the float32 step in the way of the official code: contiguous tensors, every head on the whole map, BatchNorm
not folded. Both sides have the same weights and the same batch, each in a process of its own. Memory is the peak of
that process less its memory before the first call.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from lib.config import CLASS_NAMES, Config, Dataset, General, Model
from lib.datasets.targets import empty_targets
from lib.engine.device import choose_device
from lib.engine.optimizer import build_optimizer
from lib.engine.step import to_channels_last
from lib.engine.trainer import Trainer
from lib.losses import Criterion
from lib.models import CenterNet3D, build_model
from lib.models.folding import fold_batch_norm
from lib.ops.feature_map import find_peaks, gather_cells
from lib.ops.gaussian import draw_gaussian
from lib.ops.heads import OBJECT_HEADS
from lib.postprocess import DecodeSettings, decode_detections
from lib.structures import Calibration, FrameInfo
from lib.structures.camera import KITTI_P2, KITTI_SIZE
from tools.bench.timing import Report, Row, Side

OBJECTS = 6  # objects per image, about KITTI's mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 if this code is not twice as fast as the plain side, or takes more memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--resolution", type=int, nargs=2, default=(1280, 384), metavar=("W", "H"))
    parser.add_argument("--backbone", default="dla34")
    parser.add_argument("--repeats", type=int, default=5, help="calls of each side; the median counts")
    parser.add_argument("--json", type=Path, metavar="OUT")
    args = parser.parse_args(argv)
    config = make_config(args.backbone, tuple(args.resolution), args.batch)
    report = Report(f"{args.backbone}, {args.resolution[0]} x {args.resolution[1]}, batch {args.batch}")
    for kind in ("training", "inference"):
        sides = {name: Side(make_side, config, name) for name in (f"plain_{kind}", kind)}
        report.time_sides(sides, args.repeats, "s/image", args.batch)
        plain, ours = (side.measure_peak() / args.batch for side in sides.values())
        report.rows.append(Row(f"peak memory, plain_{kind}", plain, "MB/image"))
        report.rows.append(Row(f"peak memory, {kind}", ours, "MB/image", plain / ours))
        for side in sides.values():
            side.close()
    decoding = {"decoding of 50 detections": Bench(config).decoding()}
    report.time_sides(decoding, 4 * args.repeats, "ms/image", args.batch)
    report.show(args.json)
    minimum = {"training": 2.0, "inference": 2.0, "peak memory, training": 1.0, "peak memory, inference": 1.0}
    return int(any(row.ratio is not None and row.ratio < minimum.get(row.name, 0.0) for row in report.rows))


def make_side(config: Config, name: str) -> Callable[[], Any]:
    """The call that a process of its own measures; ``name``: a method of :class:`Bench`."""
    bench = Bench(config)
    if not name.startswith("plain"):
        choose_device([0])  # with the memory settings that it makes on a CPU, as in training
    run = getattr(bench, name)()

    def run_to_the_end() -> None:
        run()
        if bench.device.type == "cuda":
            torch.cuda.synchronize()

    return run_to_the_end


def make_config(backbone: str, resolution: tuple[int, int], batch: int) -> Config:
    """Both extra losses; all other values as published."""
    general, dataset = General(qi=True, obj_depth=True), Dataset(resolution=resolution, batch_size=batch)
    return Config(general, dataset, Model(backbone=backbone, pretrained=False))


class DenseHeads(nn.Module):
    """The parameters of a :class:`CenterNet3D`, with every head run on the whole map."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model: CenterNet3D = build_model(config)

    def forward(self, images: Tensor, indices: Tensor | None = None) -> dict[str, Tensor]:
        """As ``CenterNet3D.forward``, for images that are normalised already; without ``indices``: at 50 peaks."""
        model = self.model
        features = model.extract_features(images)
        outputs = {"features": features, "heatmap": model.heatmap(features)}
        outputs |= find_peaks(outputs["heatmap"], 50)._asdict() if indices is None else {"indices": indices}
        if model.obj_depth is not None:
            outputs["obj_depth"] = model.obj_depth(features)
        maps = {name: getattr(model, name)(features) for name in OBJECT_HEADS}
        return outputs | {name: gather_cells(map_, outputs["indices"]) for name, map_ in maps.items()}


class Bench:
    """One random batch; each method returns a function that processes the batch in one way."""

    def __init__(self, config: Config, device: torch.device | None = None) -> None:
        self.config, self.batch = config, config.dataset.batch_size
        # that head is not built for inference
        self.inference_config = replace(config, general=replace(config.general, obj_depth=False))
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        rng = np.random.default_rng(0)
        width, height = config.dataset.resolution
        images = rng.integers(0, 256, (self.batch, height, width, 3), dtype=np.uint8)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)
        self.normalised = ((self.images.float() - 128) / 60).contiguous()
        self.targets = make_random_targets(rng, self.batch, width // 4, height // 4)
        if self.device.type == "cuda":  # as the loader returns them
            self.images = self.images.pin_memory()
            self.targets = {name: value.pin_memory() for name, value in self.targets.items()}
        calibration = Calibration(np.array(KITTI_P2))
        self.frames = [FrameInfo(f"{k:06d}", KITTI_SIZE, calibration) for k in range(self.batch)]
        self.settings = DecodeSettings(CLASS_NAMES, config.dataset.resolution, 0.0)

    def trainer(self, loader: Any = None) -> Trainer:
        """A Trainer in training mode; without a loader, for its ``step`` only."""
        torch.manual_seed(0)
        model = build_model(self.config)
        to_channels_last(model, self.device)
        optimizer = build_optimizer(model, self.config.optimizer, fused=self.device.type == "cuda")
        loader = loader or SimpleNamespace(dataset=range(self.batch))
        criterion = Criterion(self.config.general)
        trainer = Trainer(model, criterion, optimizer, loader, self.config, Path(), self.device, lambda *_: {})
        model.train()
        return trainer

    def training(self) -> Callable[[], Any]:
        """One step of this code, losses read."""
        trainer = self.trainer()
        return lambda: trainer.step(self.images, self.targets, self.frames).read()

    def plain_training(self) -> Callable[[], Any]:
        """One plain step, losses read."""
        torch.manual_seed(0)
        model = DenseHeads(self.config).to(self.device).train()
        optimizer = build_optimizer(model, self.config.optimizer)
        criterion = Criterion(self.config.general)

        def step() -> float:
            targets = {name: value.to(self.device) for name, value in self.targets.items()}
            losses = criterion(model(self.normalised.to(self.device), targets["indices"]), targets)
            values = {name: value.item() for name, value in losses.items()}
            total = torch.stack(list(losses.values())).sum()
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            return sum(values.values())

        return step

    def inference(self) -> Callable[[], Any]:
        """Forward pass and decoding of this code."""
        model = self.folded_network()

        @torch.inference_mode()
        def run() -> Any:
            return decode_detections(model(self.images.to(self.device)), self.frames, self.settings)

        return run

    def plain_inference(self) -> Callable[[], Any]:
        """Plain forward pass, and the same decoding."""
        torch.manual_seed(0)
        model = DenseHeads(self.inference_config).to(self.device).eval()

        @torch.no_grad()
        def run() -> Any:
            return decode_detections(model(self.normalised.to(self.device)), self.frames, self.settings)

        return run

    def folded_network(self) -> nn.Module:
        """This code's network for inference, on the device."""
        torch.manual_seed(0)
        model = fold_batch_norm(build_model(self.inference_config))
        to_channels_last(model, self.device)
        return model

    def decoding(self) -> Callable[[], Any]:
        """Decoding alone: outputs on the host -> objects, 50 per image."""
        rng = np.random.default_rng(1)
        values = {name: rng.normal(size=(self.batch, 50, head.channels)) for name, head in OBJECT_HEADS.items()}
        outputs = {name: torch.from_numpy(value) for name, value in values.items()}
        outputs["size_3d"] = torch.rand(self.batch, 50, 3) + 1
        outputs["scores"] = torch.rand(self.batch, 50)
        outputs["classes"] = torch.randint(0, 3, (self.batch, 50))
        outputs["indices"] = torch.randint(0, 96 * 320, (self.batch, 50))
        settings = replace(self.settings, resolution=(1280, 384))
        return lambda: decode_detections(outputs, self.frames, settings)


def make_random_targets(rng: np.random.Generator, batch: int, width_map: int, height_map: int) -> dict[str, Tensor]:
    """Targets of images with OBJECTS cars each; the object-wise depth map covers a fifth of the image."""
    images = []
    for _ in range(batch):
        targets = empty_targets(width_map, height_map, Dataset())
        for slot in range(OBJECTS):
            x, y = int(rng.integers(width_map)), int(rng.integers(height_map))
            draw_gaussian(targets["heatmap"][1], (x, y), 5)
            targets["indices"][slot] = y * width_map + x
            for name in ("offset_2d", "size_2d", "offset_3d", "size_3d", "src_size_3d"):
                targets[name][slot] = rng.uniform(0.5, 3, targets[name].shape[1])
            targets["depth"][slot] = rng.uniform(3, 60)
            targets["mask_2d"][slot] = targets["mask_3d"][slot] = True
        painted = rng.random((1, height_map, width_map)) < 0.2
        depth_map = np.where(painted, rng.uniform(3, 60), 0).astype(np.float32)
        images.append(targets | {"obj_depth": depth_map})
    return {name: torch.from_numpy(np.stack([each[name] for each in images])) for name in images[0]}


if __name__ == "__main__":
    sys.exit(main())
