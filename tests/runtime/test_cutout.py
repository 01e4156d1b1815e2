"""Cutting out at full size: edges follow the picture, colours do not bleed, backgrounds are what was asked for."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from keepsight.runtime import cutout
from tests.matting import disc

SIZE = (640, 480)


def test_the_edge_follows_the_picture_where_the_matte_is_coarse() -> None:
    mask = disc(SIZE, radius=0.3)
    image = np.where(mask[..., None], 210, 60).astype(np.uint8).repeat(3, axis=2)
    matte = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize((32, 32), Image.Resampling.BOX))
    plain = np.asarray(Image.fromarray(matte).resize(SIZE, Image.Resampling.BILINEAR))
    found = cutout.refined(matte, image)
    error, before = (np.abs(each.astype(float) / 255 - mask).mean() for each in (found, plain))
    assert error < 0.6 * before
    assert found[240, 320] == 255
    assert found[5, 5] == 0


def test_a_flat_picture_keeps_the_mattes_edge() -> None:
    matte = np.asarray(Image.fromarray(disc((32, 32)).astype(np.uint8) * 255).filter(ImageFilter.BoxBlur(1)))
    image = np.full((64, 64, 3), 128, np.uint8)
    plain = np.asarray(Image.fromarray(matte).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.abs(cutout.refined(matte, image).astype(int) - plain).max() < 70


def test_the_old_background_does_not_shine_through_at_the_edge() -> None:
    mask = disc(SIZE, radius=0.3)
    alpha = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(3)))
    share = alpha[..., None] / 255
    red, green = np.array([200.0, 30, 30]), np.array([20.0, 180, 20])
    image = np.rint(share * red + (1 - share) * green).astype(np.uint8)
    edge = (alpha > 40) & (alpha < 215)
    colours = cutout.foreground(image, alpha)
    assert np.abs(image[edge].astype(float) - red).mean() > 40
    assert np.abs(colours[edge].astype(float) - red).mean() < 6
    ideal = share * red + (1 - share) * 255
    made = cutout.compose(image, alpha, background=(255, 255, 255))
    assert np.abs(made.astype(float) - ideal).max() < 20


def test_backgrounds() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    alpha = disc((60, 40)).astype(np.uint8) * 255
    clear = cutout.compose(image, alpha)
    assert clear.shape == (40, 60, 4)
    assert (clear[..., 3] == alpha).all()
    assert (clear[alpha == 255, :3] == image[alpha == 255]).all()
    assert not clear[alpha == 0].any()
    blue = cutout.compose(image, alpha, background=(10, 20, 250))
    assert blue.shape == (40, 60, 3)
    assert (blue[alpha == 0] == [10, 20, 250]).all()
    photo = np.zeros((200, 100, 3), np.uint8)
    photo[:, 50:] = 255
    behind = cutout.compose(image, alpha, background=photo)
    assert (behind[alpha == 255] == image[alpha == 255]).all()
    assert behind[0, 0].tolist() == [0, 0, 0]
    assert behind[0, -1].tolist() == [255, 255, 255]
    assert not photo[:, :50].any(), "the background that was given is left as it was"


def test_a_photo_covers_the_picture_and_is_cut_in_the_middle() -> None:
    photo = np.zeros((100, 300, 3), np.uint8)
    photo[:, 100:200] = 200
    made = cutout.covering(photo, (50, 50))
    assert made.shape == (50, 50, 3)
    assert (made[:, 2:-2] == 200).all()
