"""Samples, batches and loaders: what they depend on, and what they do not."""

import cv2
import numpy as np
import pytest
import torch

import make_obj_depth
from lib.config import Config, Dataset, General
from lib.datasets.kitti import KITTI
from lib.datasets.samples import EpochBatches, TrainingSamples, inference_loader, training_loader
from lib.system import machine


def config_for(workers=0, **dataset):
    return Config(general=General(), dataset=Dataset(batch_size=2, num_workers=workers, **dataset))


def test_samples_depend_on_seed_epoch_and_frame_alone(tiny_kitti):
    samples = TrainingSamples(KITTI(tiny_kitti, "train"), config_for())
    first = samples[(3, 0)]
    samples[(0, 1)]
    again = samples[(3, 0)]
    assert torch.equal(first.image, again.image)
    assert first.image.dtype == torch.uint8 and first.image.shape == (3, 384, 1280)
    images = {samples[(epoch, 0)].image.float().mean().item() for epoch in range(6)}
    assert len(images) > 2


def same_batches(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert [f.frame_id for f in a.frames] == [f.frame_id for f in b.frames]
        assert torch.equal(a.images, b.images) and a.targets.keys() == b.targets.keys()
        assert all(torch.equal(a.targets[k], b.targets[k]) for k in a.targets)


def epochs(frames, **dataset):
    loader = training_loader(frames, config_for(**dataset))
    batches = []
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def test_workers_change_nothing(tiny_kitti):
    frames = KITTI(tiny_kitti, "train")
    same_batches(epochs(frames, workers=2), epochs(frames))


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_images_are_the_same(tiny_kitti, workers):
    plain = epochs(KITTI(tiny_kitti, "train"))
    frames = KITTI(tiny_kitti, "train", cache=True)
    same_batches(epochs(frames, workers=workers), plain)
    for path in (tiny_kitti / "training/image_2").iterdir():
        path.unlink()
    same_batches(epochs(frames, workers=workers), plain)  # what workers that have ended decoded is still there


def test_a_cache_needs_forked_loaders(tiny_kitti, monkeypatch):
    frames = KITTI(tiny_kitti, "train", cache=True)
    assert training_loader(frames, config_for(2)).multiprocessing_context.get_start_method() == "fork"
    assert training_loader(KITTI(tiny_kitti, "train"), config_for(2)).multiprocessing_context is None
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert training_loader(frames, config_for(0)).num_workers == 0
    with pytest.raises(ValueError, match="set num_workers: 0"):
        training_loader(frames, config_for(2))


def test_a_cache_that_does_not_fit_is_refused(tiny_kitti, monkeypatch):
    monkeypatch.setattr("lib.datasets.image_cache.available_memory", lambda: 5_000_000)
    with pytest.raises(ValueError, match=r"needs 0\.01 GB for 4 images and 0\.01 GB are free; set dataset\.cache"):
        KITTI(tiny_kitti, "train", cache=True)
    monkeypatch.undo()
    free = machine.available_memory()
    assert free is None or free > 10_000_000


def test_every_source_of_object_depth_is_the_same(tiny_kitti):
    arguments = ["--dataroot", str(tiny_kitti)]
    assert make_obj_depth.main(arguments) == 0
    for folder in ("obj_depth", "obj_depth_all"):
        from_npy = epochs(KITTI(tiny_kitti, "train", folder))
        assert sum((b.targets["obj_depth"] > 0).sum() for b in from_npy) > 100
        same_batches(epochs(KITTI(tiny_kitti, "train", folder, paint_obj_depth=True)), from_npy)
        assert make_obj_depth.main([*arguments, "--format", "npz"]) == 0
        assert not list(tiny_kitti.rglob("*.npy"))
        same_batches(epochs(KITTI(tiny_kitti, "train", folder)), from_npy)
        assert make_obj_depth.main(arguments) == 0


def test_epochs_have_their_own_order_and_every_frame_once():
    batches = EpochBatches(50, 8, seed=1)
    orders = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        assert [len(batch) for batch in batches] == [8] * 6 + [2] and len(batches) == 7
        keys = [key for batch in batches for key in batch]
        assert {e for e, _ in keys} == {epoch}
        orders.append([i for _, i in keys])
        assert sorted(orders[-1]) == list(range(50))
    assert orders[0] == orders[2] != orders[1]


def test_an_epoch_goes_on_where_it_was_interrupted():
    batches = EpochBatches(50, 8, seed=1)
    whole = list(batches)
    batches.set_epoch(0, frames_done=24)
    assert list(batches) == whole[3:] and len(batches) == 4


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_shares_put_together_are_the_batch(ranks):
    whole = list(EpochBatches(50, 8, seed=1))
    shares = [list(EpochBatches(50, 8, 1, rank, ranks)) for rank in range(ranks)]
    for k, batch in enumerate(whole):
        assert [key for share in shares for key in share[k]] == batch
        sizes = [len(share[k]) for share in shares]
        assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_every_frame_is_evaluated_once(tiny_kitti):
    frames = KITTI(tiny_kitti, "train")
    for ranks in (1, 2, 3):
        batches = [list(inference_loader(frames, config_for(), rank, ranks)) for rank in range(ranks)]
        seen = [f.frame_id for rank in batches for batch in rank for f in batch.frames]
        assert sorted(seen) == sorted(frames.frame_ids)


def test_bad_frames_can_be_skipped(tiny_kitti):
    """Broken in three ways: two known from the start, one only when the image is decoded."""
    path = tiny_kitti / "training/image_2/000001.png"
    content = path.read_bytes()
    path.write_bytes(content[:100] + content[-12:])
    (tiny_kitti / "training/label_2/000003.txt").write_text("Car 1 2 3\n")
    (tiny_kitti / "training/calib/000002.txt").unlink()
    frames = KITTI(tiny_kitti, "train", allow_bad_frames=True)
    assert frames.median_focal_net(1280) == pytest.approx(721.5377 * 1280 / 1242)
    loader = training_loader(frames, config_for(on_bad_frame="skip"))
    batches = list(loader)
    assert [f.frame_id for b in batches for f in b.frames] == ["000000"]
    skipped = {s.frame_id: s.reason for b in batches for s in b.skipped}
    assert set(skipped) == {"000001", "000002", "000003"}
    assert "cannot be decoded" in skipped["000001"] and "calib/000002.txt" in skipped["000002"]
    assert "000003.txt, line 1" in skipped["000003"]
    (empty,) = [b for b in batches if not b.frames]
    full = next(b for b in batches if b.frames)
    assert {k: (v.shape[1:], v.dtype) for k, v in empty.targets.items()} == {
        k: (v.shape[1:], v.dtype) for k, v in full.targets.items()
    }
    assert empty.images.shape == (0, 3, 384, 1280)
    with pytest.raises(ValueError, match=r"000001\.png: this image cannot be decoded"):
        TrainingSamples(frames, config_for())[(0, 1)]


def test_the_focal_length_of_a_split_is_its_frames_median(tiny_kitti):
    """At network resolution: a smaller image of a larger focal length counts twice as much."""
    for frame_id, focal, width in (("000000", 700.0, 1242), ("000001", 800.0, 1242), ("000003", 700.0, 621)):
        calib = f"P2: {focal} 0 600 0 0 {focal} 170 0 0 0 1 0\n"
        (tiny_kitti / "training/calib" / f"{frame_id}.txt").write_text(calib)
        cv2.imwrite(str(tiny_kitti / "training/image_2" / f"{frame_id}.png"), np.zeros((375, width, 3), np.uint8))
    frames = KITTI(tiny_kitti, "train")
    focals = [700 / 1242, 721.5377 / 1242, 800 / 1242, 1400 / 1242]
    assert frames.median_focal_net(1280) == pytest.approx(1280 * (focals[1] + focals[2]) / 2)


def test_inference_batches(tiny_kitti):
    images, targets, infos, skipped = next(iter(inference_loader(KITTI(tiny_kitti, "test"), config_for())))
    assert images.shape == (2, 3, 384, 1280) and images.dtype == torch.uint8
    assert targets == {} and skipped == []
    assert [(i.frame_id, i.image_size) for i in infos] == [("000000", (1242, 375)), ("000001", (1242, 375))]
