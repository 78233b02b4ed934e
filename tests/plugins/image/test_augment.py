"""Augmentation: what it changes, what it leaves alone, and that only a sample's own numbers decide."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torchvision")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelwright.errors import ConfigError
from modelwright_image.augment import augment, cutout, flip_and_crop, mix
from modelwright_image.config import AugmentConfig


class Numbers:
    """Random numbers that depend on the sample's id and the name only."""

    def __init__(self, ids, **fixed):
        self.ids, self.fixed = ids, fixed

    def __call__(self, name, columns=1):
        if name in self.fixed:
            return np.tile(np.asarray(self.fixed[name], dtype=float), (len(self.ids), 1))
        return np.stack([np.random.default_rng([i, *name.encode()]).random(columns) for i in self.ids])


def pictures(count, channels=3, height=8, width=8, seed=0):
    rows = np.random.default_rng(seed).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return torch.from_numpy(rows).permute(0, 3, 1, 2)


def is_channels_last(images):
    return images.permute(0, 2, 3, 1).is_contiguous()


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 5), channels=st.sampled_from([1, 3]), height=st.integers(4, 9), width=st.integers(4, 9),
    crop=st.integers(0, 3), flip=st.booleans(),
)  # fmt: skip
def test_flip_and_crop_is_numpy_pad_flip_and_slice(count, channels, height, width, crop, flip):
    images, numbers = pictures(count, channels, height, width), Numbers(range(count))
    changed = flip_and_crop(images, numbers, flip=flip, crop=crop)
    for i in range(count):
        rows = images[i].permute(1, 2, 0).numpy()
        mirrored = flip and numbers("flip")[i, 0] < 0.5
        padded = np.pad(rows[:, ::-1] if mirrored else rows, ((crop, crop), (crop, crop), (0, 0)), mode="reflect")
        y, x = np.floor(numbers("crop", 2)[i] * (2 * crop + 1)).astype(int)
        np.testing.assert_array_equal(changed[i].permute(1, 2, 0), padded[y : y + height, x : x + width])
    assert changed.dtype == torch.uint8
    assert is_channels_last(changed)


def test_contiguous_pictures_give_the_same():
    images, numbers = pictures(4), Numbers(range(4))
    a = flip_and_crop(images, numbers, flip=True, crop=2)
    assert torch.equal(a, flip_and_crop(images.contiguous(), numbers, flip=True, crop=2))


def test_a_crop_as_large_as_the_picture_is_an_error():
    with pytest.raises(ConfigError, match=r"augment\.crop=8 is too much for pictures of 8 x 8"):
        augment(pictures(2), torch.zeros(2, dtype=torch.int64), Numbers(range(2)), AugmentConfig(crop=8), classes=2)


SETTINGS = [
    {"flip": True, "crop": 2}, {"rotate": 20.0}, {"scale": 0.3}, {"color": 0.4}, {"cutout": 3},
    {"flip": True, "crop": 1, "rotate": 10.0, "scale": 0.1, "color": 0.2, "cutout": 4},
]  # fmt: skip


@pytest.mark.parametrize("wanted", SETTINGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_is_changed_alike_in_any_batch(wanted, channels):
    images, labels = pictures(6, channels, 10, 7), torch.arange(6)
    together, same = augment(images, labels, Numbers(range(6)), AugmentConfig(**wanted), classes=6)
    assert torch.equal(same, labels)
    assert together.shape == images.shape
    assert not torch.equal(together.float(), images.float())
    some = [4, 1]
    apart, _ = augment(images[some], labels[some], Numbers(some), AugmentConfig(**wanted), classes=6)
    torch.testing.assert_close(apart, together[some], rtol=0, atol=1e-4)
    assert 0 <= float(together.min()) <= float(together.max()) <= 255


def test_nothing_asked_nothing_done():
    images, labels = pictures(3), torch.arange(3)
    same = augment(images, labels, Numbers(range(3)), AugmentConfig(), classes=3)
    assert same[0] is images
    assert same[1] is labels


def test_an_empty_batch_passes():
    images, _ = augment(pictures(0), torch.zeros(0), Numbers([]), AugmentConfig(flip=True, mixup=1.0), classes=2)
    assert len(images) == 0


@pytest.mark.parametrize(("height", "width"), [(9, 9), (8, 12)])
def test_half_a_turn_is_half_a_turn(height, width):
    images = pictures(2, 3, height, width)
    numbers = Numbers(range(2), **{"rotate and zoom": [1.0, 0.5]})
    turned, _ = augment(images, torch.zeros(2), numbers, AugmentConfig(rotate=180), classes=2)
    torch.testing.assert_close(turned, images.flip((2, 3)).float(), rtol=0, atol=0.1)


def test_a_turn_keeps_shapes_in_a_picture_that_is_not_square():
    images = torch.zeros(1, 1, 21, 41, dtype=torch.uint8)
    images[:, :, 10, 15:26] = 255  # 11 pixels lying
    numbers = Numbers([0], **{"rotate and zoom": [1.0, 0.5]})
    turned, _ = augment(images, torch.zeros(1), numbers, AugmentConfig(rotate=90), classes=2)
    assert torch.all(turned[0, 0, 6:15, 20] > 250)  # now standing, as long as before
    assert torch.all(turned[0, 0, :4] < 1)
    assert torch.all(turned[0, 0, 17:] < 1)


def test_cutout_blanks_a_square_with_the_mean():
    images = pictures(1, 3, 10, 10)
    changed = cutout(images, Numbers([0], cutout=[0.5, 0.5]), side=4)
    different = (changed != images).any(dim=1)[0]
    rows, columns = different.nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (3, 6, 3, 6)
    mean = images.float().mean(dim=(2, 3))
    torch.testing.assert_close(changed[:, :, 4, 4].float(), mean, rtol=0, atol=0.5)


def test_mixup_mixes_pictures_and_targets_alike():
    images = torch.arange(4, dtype=torch.uint8).mul(50)[:, None, None, None].expand(4, 3, 6, 6)
    labels = torch.arange(4)
    mixed, targets = mix(images, labels, Numbers(range(4)), mixup=1.0, cutmix=0.0, classes=4)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(4))
    assert torch.all((targets > 0).sum(dim=1) == 2)  # a partner is always another sample
    torch.testing.assert_close(mixed[:, 0, 0, 0], targets @ torch.tensor([0.0, 50, 100, 150]))


def test_cutmix_gives_the_target_the_share_of_pixels():
    images = torch.tensor([0, 50, 100, 150], dtype=torch.uint8)[:, None, None, None].expand(4, 1, 9, 6)
    mixed, targets = mix(images, torch.arange(4), Numbers(range(4)), mixup=0.0, cutmix=1.0, classes=4)
    shares = torch.stack([(mixed == value).float().mean(dim=(1, 2, 3)) for value in (0, 50, 100, 150)], dim=1)
    torch.testing.assert_close(targets, shares)
    assert ((targets > 0).sum(dim=1) == 2).any()


def test_with_both_each_picture_gets_one_of_the_two():
    count = 40
    images = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 8, 8)
    mixed, targets = mix(images, torch.arange(count), Numbers(range(count)), mixup=1.0, cutmix=1.0, classes=count)
    whole = (mixed == mixed[:, :, :1, :1]).all(dim=3).all(dim=2)[:, 0]
    assert 0.2 < float(whole.float().mean()) < 0.8
    expected = targets @ torch.arange(count, dtype=torch.float32)
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), expected)


def test_mixing_does_not_depend_on_the_order_within_the_batch():
    images, labels, turned = pictures(5), torch.arange(5), [3, 0, 4, 1, 2]
    a = mix(images, labels, Numbers(range(5)), mixup=0.5, cutmix=0.5, classes=5)
    b = mix(images[turned], labels[turned], Numbers(turned), mixup=0.5, cutmix=0.5, classes=5)
    torch.testing.assert_close(a[0][turned], b[0])
    torch.testing.assert_close(a[1][turned], b[1])


def test_one_sample_is_its_own_partner():
    images = pictures(1)
    mixed, targets = mix(images, torch.tensor([1]), Numbers([0]), mixup=1.0, cutmix=0.0, classes=3)
    torch.testing.assert_close(mixed, images.float())
    assert targets.tolist() == [[0, 1, 0]]
