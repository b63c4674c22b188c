"""Augmentation of chips: what it keeps, and that it depends on its generator alone."""

import torch
from torch import Generator, Tensor

from training.judge.augment import augmented, blurred

LAGS_S = (0.0, 0.1, 0.2, 0.35, 0.5)


def spots(count: int, contrast: float = 90.0) -> Tensor:
    """Plain skies with a spot in the middle that stands still."""
    axis = torch.arange(64.0) - 31.5
    spot = torch.exp(-(axis[:, None] ** 2 + axis**2) / 18)
    noise = torch.randn(count, 5, 64, 64, generator=Generator().manual_seed(1))
    return (100 + contrast * spot + noise).clamp(0, 255)


def made(chips: Tensor, seed: int, *, targets: bool = True) -> Tensor:
    backgrounds = 60 + 20 * torch.rand(chips.shape, generator=Generator().manual_seed(2))
    is_target = torch.full((len(chips),), targets)
    return augmented(chips, is_target, backgrounds, LAGS_S, 48, Generator().manual_seed(seed))[0]


def test_the_target_stays_in_sight_and_in_range() -> None:
    changed = made(spots(200), 1)
    assert changed.shape == (200, 5, 48, 48)
    assert changed.min() >= 0 and changed.max() <= 255 and torch.equal(changed, changed.round())
    middle = changed[:, 0, 18:30, 18:30].flatten(1)
    around = changed[:, 0].flatten(1).median(1).values[:, None]
    assert ((middle - around).abs().max(1).values > 10).float().mean() > 0.95


def test_it_depends_on_its_generator_alone_and_leaves_its_input() -> None:
    chips = spots(30)
    before = chips.clone()
    first, again, other = (made(chips, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(chips, before)


def test_only_targets_get_another_background() -> None:
    def rough(changed: Tensor) -> Tensor:
        return changed[:, 0, :10].flatten(1).std(1) / changed[:, 0].flatten(1).std(1)

    with_targets, without = rough(made(spots(300), 3)), rough(made(spots(300), 3, targets=False))
    assert 0.3 < (with_targets - without).abs().gt(1e-4).float().mean() < 0.6


def test_short_histories_repeat_their_oldest_frame() -> None:
    chips = spots(400)
    for frame in range(5):
        chips[:, frame] += 4.0 * frame
    means = made(chips, 4, targets=False).mean((2, 3))
    steps = (means[:, 1:] - means[:, :-1]).abs()
    repeated = (steps[:, 3] < 0.2 * steps[:, 0]).float().mean()  # of what went back 0.5 s, some end at 0.35 s or before
    assert 0.02 < repeated < 0.3


def test_blurring_keeps_the_mean_and_takes_the_noise() -> None:
    chips = spots(4, 0.0)
    assert (blurred(chips).mean() - chips.mean()).abs() < 0.01
    assert blurred(chips).std() < 0.4 * chips.std()
    assert torch.equal(blurred(torch.full((1, 5, 9, 9), 7.0)), torch.full((1, 5, 9, 9), 7.0))


def test_what_hardly_shows_its_class_counts_less_for_it() -> None:
    chips = spots(400)
    is_target = torch.ones(400, dtype=torch.bool)
    backgrounds = 60 + 20 * torch.rand(chips.shape, generator=Generator().manual_seed(2))
    _, weight = augmented(chips, is_target, backgrounds, LAGS_S, 48, Generator().manual_seed(6))
    assert set(weight.unique().tolist()) == {1.0, weight.min().item()} and 0 < weight.min() < 0.5
    assert 0.4 < (weight < 1).float().mean() < 0.9  # pasted, coarse or much smaller
