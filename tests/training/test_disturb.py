"""Disturbances: what each does to an item, and to nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fuseline.config import Disturb
from fuseline.training.disturb import build_disturbances

ALL = ["text", "image", "audio"]


def disturb(modality: str, item: Any, draw: int = 1, **how: Any) -> Any:
    return build_disturbances(Disturb(**how), ALL)[modality](item, draw)


def half() -> np.ndarray:
    """Give a picture that is black at the left and white at the right."""
    return np.repeat(np.where(np.arange(20) < 10, 0, 255).astype(np.uint8)[None, :, None], 20, 0).repeat(3, 2)


@pytest.mark.parametrize("how", [{"blur": 0.1}, {"rotate": 30.0}, {"noise": 0.2}])
def test_pictures_change_by_draw_and_keep_their_form(how):
    picture = half()
    changed = disturb("image", picture, **how)
    assert (changed.shape, changed.dtype) == (picture.shape, np.uint8)
    assert (changed != picture).any()
    np.testing.assert_array_equal(changed, disturb("image", picture, **how))
    several = disturb("image", np.stack([picture, picture]), **how)
    assert several.shape == (2, 20, 20, 3)
    np.testing.assert_array_equal(picture, half())


def test_a_blur_is_as_wide_as_it_says():
    """Across an edge a Gaussian blur is the normal distribution: 84 % of white one deviation into it."""
    changed = disturb("image", np.repeat(half(), 10, 0).repeat(10, 1), blur=0.05)
    assert changed[100, 110, 0] / 255 == pytest.approx(0.84, abs=0.03)


def test_noise_is_as_strong_as_it_says():
    grey = np.full((50, 50, 3), 128, np.uint8)
    assert disturb("image", grey, noise=0.1).std() == pytest.approx(25.5, rel=0.05)
    wave = np.sin(np.arange(8000, dtype=np.float32))
    assert (disturb("audio", wave, noise=0.5) - wave).std() == pytest.approx(0.5 * wave.std(), rel=0.05)


def test_pictures_turn_to_either_side():
    turned = [disturb("image", half(), draw, rotate=20.0) for draw in range(20)]
    assert len({picture.tobytes() for picture in turned}) == 2


def test_typos_keep_letters_words_and_their_places():
    text = "the quick brown fox, 12 times"
    changed = disturb("text", text, typos=0.5)
    assert changed != text
    assert [len(word) for word in changed.split(" ")] == [len(word) for word in text.split(" ")]
    for old, new in zip(text.split(" "), changed.split(" "), strict=True):
        assert sorted(old) == sorted(new)
    assert disturb("text", text, draw=2, typos=0.5) != changed
    assert changed.endswith("12 " + changed[-5:])


def test_another_case_keeps_the_length():
    assert disturb("text", "Straße, İstanbul", case="upper") == "STRAßE, İSTANBUL"
    assert len(disturb("text", "İstanbul", case="lower")) == 8


def test_only_what_is_used_is_changed():
    assert build_disturbances(Disturb(noise=0.1), ["text", "audio"]).keys() == {"audio"}
    assert build_disturbances(Disturb(blur=0.1), ["text"]) == {}
    assert build_disturbances(Disturb(case="upper"), ALL).keys() == {"text"}


@pytest.mark.parametrize("how", [{}, {"blur": 0.1, "noise": 0.1}, {"typos": 0.0}, {"case": "title"}])
def test_exactly_one_change_is_described(how):
    with pytest.raises(ValueError, match=r"exactly one|greater than 0|upper"):
        Disturb(**how)
