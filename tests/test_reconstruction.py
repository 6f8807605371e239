"""Reconstruction: the published protocol, worked out a second time by hand."""

import numpy as np
import pytest
import torch
from media_files import moving_square, write_video
from small_models import SIZE, small_model

from hdam.pipelines.errors import InputError
from hdam.pipelines.prepare import PrepareOptions, prepare
from hdam.pipelines.shards import iter_clips
from hdam.platform.evaluation.reconstruction import reconstruct
from hdam.platform.images import frames_to_images, images_to_frames

LENGTHS = (20, 5, 9)
"""The first is longer than what is painted at once."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    (folder / "videos").mkdir()
    for seed, length in enumerate(LENGTHS):
        write_video(folder / "videos" / f"square{seed}.mp4", moving_square(length, height=SIZE, seed=seed))
    prepare(folder / "videos", folder / "data", options=PrepareOptions(size=SIZE, test_share=0.0, max_chunk_frames=8))
    return str(folder / "data")


@torch.no_grad()
def by_hand(model, dataset):
    errors, repeat_errors = [], []
    for clip in iter_clips(dataset, "train"):
        frames = [torch.tensor(clip.frame(i)).permute(2, 0, 1)[None] / 255 for i in range(clip.num_frames)]
        for frame in frames:
            errors.append((model(frames[0], frame).image - frame).abs().mean().item())
            repeat_errors.append((frames[0] - frame).abs().mean().item())
    return np.mean(errors), np.mean(repeat_errors)


def test_errors_are_means_over_all_frames_of_all_clips(dataset):
    model = small_model().model
    found = reconstruct(model, dataset, split="train")
    assert (found.l1, found.repeat_l1) == pytest.approx(by_hand(model, dataset), rel=1e-5)
    assert found.ratio == pytest.approx(found.l1 / found.repeat_l1)
    assert (found.num_clips, found.num_frames) == (3, sum(LENGTHS))
    assert sorted(clip.num_frames for clip in found.clips) == sorted(LENGTHS)


def test_the_model_is_given_back_as_it_was(dataset):
    model = small_model().model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    reconstruct(model, dataset, split="train")
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_split_without_clips_is_refused(dataset):
    with pytest.raises(InputError, match="split"):
        reconstruct(small_model().model, dataset, split="test")


def test_frames_survive_the_way_to_images_and_back():
    frames = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8)
    images = frames_to_images(frames, torch.device("cpu"))
    assert images.shape == (2, 3, 5, 7)
    assert images.min() >= 0 and images.max() <= 1
    assert np.array_equal(images_to_frames(images), frames)
