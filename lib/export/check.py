"""Whether an exported detector computes what PyTorch computes, and the inputs that both are run on.

B images, K object slots an image. Outputs have the names of ``lib/export/onnx_graph.py``.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from ..datasets.augmentation import Augmentation
from ..datasets.images import read_image

LIMIT = 1e-3  # largest relative difference of objects that agree
DIFFERING_SHARE = 0.02  # share of the objects that may differ
LEAST_SCALE = {"score": 1e-9, "heatmap": 1e-9, "bbox": 1, "dimensions": 1, "location": 1, "rotation_y": 1, "alpha": 1}
"""outputs that are compared; differences are relative to the expected value, or to this where it is larger"""
Batch = tuple[np.ndarray, np.ndarray, np.ndarray]  # images, P2 and image sizes, as the exported graph takes them


@dataclass
class Comparison:
    """Outputs of the exported file beside those of PyTorch, for the same images.

    An object agrees if both have it, with the same class and cell, and no output differs by more than :data:`LIMIT`.
    A few may differ: where two peaks or two heading bins are equal, rounding decides between them.
    """

    objects: int = 0
    differing: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """number of objects that differ in an output, or are 'not found' by one side"""
    largest: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LEAST_SCALE, 0.0))
    """by output, the largest relative difference among the objects that agree"""

    def add(self, exported: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
        """Compare the outputs for one image, (K, ..) by name. Slots whose heatmap value is 0 are no objects."""
        slots, expected_slots = _slots_by_place(exported), _slots_by_place(expected)
        common = [place for place in expected_slots if place in slots]
        i, j = [slots[place] for place in common], [expected_slots[place] for place in common]
        differences = {name: relative_differences(name, exported[name][i], expected[name][j]) for name in LEAST_SCALE}
        agrees = np.all([values <= LIMIT for values in differences.values()], axis=0)  # NaN does not
        objects = max(len(slots), len(expected_slots))
        self.objects += objects
        self.differing += objects - int(agrees.sum())
        self.reasons["not found"] += objects - len(common)
        for name, values in differences.items():
            self.reasons[name] += int((~(values <= LIMIT)).sum())
            self.largest[name] = max(self.largest[name], float(values[agrees].max(initial=0.0)))

    def require_agreement(self, origin: str) -> None:
        """Raises FloatingPointError, beginning with ``origin``, where too many objects differ or there are none."""
        if not self.objects:
            raise FloatingPointError(f"{origin}: the heatmap has no peak to compare; is this checkpoint trained?")
        if self.differing > DIFFERING_SHARE * self.objects:
            reasons = ", ".join(f"{name} {count}" for name, count in self.reasons.most_common() if count)
            raise FloatingPointError(
                f"{origin}: {self.differing} of {self.objects} objects differ from PyTorch by more than {LIMIT:g} "
                f"({reasons}); {DIFFERING_SHARE:.0%} may, where peaks or heading bins are equal. The peaks of "
                "an untrained network are nearly equal, so it cannot be compared"
            )


def relative_differences(name: str, exported: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(N, ..), (N, ..) -> (N,): each object's largest difference, relative to its largest component."""
    difference = np.abs(exported.astype(np.float64) - expected)
    if name in ("rotation_y", "alpha"):
        difference = np.abs((difference + np.pi) % (2 * np.pi) - np.pi)  # pi and -pi are the same angle
    components = tuple(range(1, expected.ndim))
    scale = np.maximum(np.abs(expected).max(axis=components, initial=0.0), LEAST_SCALE[name])
    return difference.max(axis=components, initial=0.0) / scale


def _slots_by_place(outputs: Mapping[str, np.ndarray]) -> dict[tuple[int, int], int]:
    """(class, cell) -> slot."""
    places = zip(outputs["class_index"].tolist(), outputs["cell"].tolist(), strict=True)
    return {place: slot for slot, place in enumerate(places) if outputs["heatmap"][slot] > 0}


def random_batches(resolution: tuple[int, int]) -> Iterator[Batch]:
    """Patches of random colours under noise, with cameras and image sizes like KITTI's."""
    rng = np.random.default_rng(0)
    for size in (1, 3, 1, 3):
        patches = rng.integers(0, 256, (size, 6, 20, 3), dtype=np.uint8)
        images = np.stack([cv2.resize(p, resolution, interpolation=cv2.INTER_CUBIC) for p in patches])
        noise = rng.integers(-40, 41, images.shape)
        image_size = rng.integers((1200, 360), (1260, 380), (size, 2)).astype(np.float32)
        yield np.clip(images + noise, 0, 255).astype(np.uint8), _random_cameras(rng, size), image_size


def image_batches(paths: Sequence[Path], resolution: tuple[int, int]) -> Iterator[Batch]:
    """Image files one by one at network resolution. Raises FileNotFoundError or ValueError."""
    rng = np.random.default_rng(1)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such image")
        image = read_image(path)
        size = (image.shape[1], image.shape[0])
        image_net = Augmentation.identity(size).image(image, resolution)
        yield image_net[None], _random_cameras(rng, 1), np.array([size], np.float32)


def _random_cameras(rng: np.random.Generator, count: int) -> np.ndarray:
    P2 = np.tile(np.array([[720, 0, 610, 0], [0, 720, 180, 0], [0, 0, 1, 0]], np.float32), (count, 1, 1))
    P2[:, :2, 2:] += rng.uniform(-50, 50, (count, 2, 2))
    return P2
