"""Random changes of training examples: each setting does something, and none does more than it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fuseline.config import AudioAugment, Augment, ImageAugment, TextAugment
from fuseline.training.augment import build_change, change_text, change_wave, draw_of, mix_pictures
from fuseline.training.modalities.base import Modality

NONE = {"flip": 0.0, "degrees": 0.0, "translate": 0.0, "scale": 0.0, "color": 0.0, "erase": 0.0, "mixup": 0.0}


def picture() -> Tensor:
    """Paint a dark, uneven picture."""
    return torch.arange(24 * 24 * 3, dtype=torch.uint8).reshape(24, 24, 3) // 4


def change(seed: int = 0, **settings: Any) -> Tensor:
    torch.manual_seed(seed)
    return build_change(ImageAugment.model_validate(NONE | settings))(picture())


def test_all_settings_at_zero_change_nothing() -> None:
    assert all(torch.equal(change(seed), picture()) for seed in range(5))


@pytest.mark.parametrize(
    "setting",
    [{"flip": 0.9}, {"degrees": 30}, {"translate": 0.3}, {"scale": 0.4}, {"color": 0.5}, {"erase": 0.9}],
    ids=str,
)
def test_each_setting_changes_pictures(setting: dict[str, float]) -> None:
    changed = [change(seed, **setting) for seed in range(8)]
    assert any(not torch.equal(one, picture()) for one in changed)
    assert all(one.shape == (24, 24, 3) and one.dtype == torch.uint8 and one.is_contiguous() for one in changed)


def test_a_flip_mirrors_left_and_right() -> None:
    seen = [change(seed, flip=0.5) for seed in range(40)]
    mirrored = sum(torch.equal(one, picture().flip(1)) for one in seen)
    assert mirrored + sum(torch.equal(one, picture()) for one in seen) == 40
    assert 10 < mirrored < 30


@pytest.mark.parametrize("setting", [{"degrees": 45}, {"translate": 0.4}, {"erase": 0.9}], ids=str)
def test_white_fills_what_comes_in(setting: dict[str, float]) -> None:
    assert any((change(seed, **setting) == 255).all(dim=2).sum() > 20 for seed in range(8))


def test_the_same_seed_gives_the_same_change_and_another_seed_another() -> None:
    settings = {"degrees": 15.0, "translate": 0.1, "scale": 0.15, "color": 0.2}
    assert torch.equal(change(3, **settings), change(3, **settings))
    assert not torch.equal(change(3, **settings), change(4, **settings))


TEXT = "one two three four five six"


def reword(drop: float, swap: float, text: str = TEXT, seed: int = 0) -> str:
    return change_text(text, TextAugment(drop=drop, swap=swap), seed)


def test_words_are_left_out_at_the_rate_that_is_said_and_stay_in_order() -> None:
    seen = [reword(0.3, 0.0, seed=seed).split() for seed in range(400)]
    assert sum(map(len, seen)) / (400 * 6) == pytest.approx(0.7, abs=0.03)
    assert all(words == [word for word in TEXT.split() if word in words] for words in seen)


def test_a_word_always_stays() -> None:
    seen = {reword(0.99, 0.0, seed=seed) for seed in range(100)}
    assert "" not in seen
    assert len(seen) > 3
    assert reword(0.5, 0.5, text="   ") == ""


def test_neighbours_change_places_once_and_none_is_lost() -> None:
    seen = [reword(0.0, 0.5, seed=seed).split() for seed in range(200)]
    order = TEXT.split()
    assert all(sorted(words) == sorted(order) for words in seen)
    assert all(abs(words.index(word) - order.index(word)) <= 1 for words in seen for word in order)
    assert any(words != order for words in seen)


def test_no_setting_changes_no_word() -> None:
    assert reword(0.0, 0.0) == TEXT


AUGMENT = Augment.model_validate({"text": {"drop": 0.5, "swap": 0.5}, "image": NONE | {"degrees": 45, "color": 0.5}})


@pytest.mark.parametrize("modality", ["text", "image"])
def test_a_change_follows_from_its_draw_alone_and_leaves_the_random_numbers_of_others_alone(
    modality: str, modalities: dict[str, Modality]
) -> None:
    item = TEXT if modality == "text" else picture().numpy()
    change = modalities[modality].build_change(AUGMENT)
    state = torch.get_rng_state()
    first = change(item, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(9)
    assert np.array_equal(change(item, 3), first)
    assert not np.array_equal(change(item, 4), first)
    assert np.array_equal(item, TEXT if modality == "text" else picture().numpy())
    assert modalities[modality].build_change(Augment()) is None


def test_draws_differ_by_each_part() -> None:
    assert len({draw_of(1, 2, 3), draw_of(0, 2, 3), draw_of(1, 1, 3), draw_of(1, 2, 4), draw_of(12, 3)}) == 5


def test_draws_are_the_same_on_every_machine() -> None:
    assert draw_of(1, 2, 3) == 926643494850814613


HAS_TEXT = [True, True, True, False, False]
HAS_IMAGE = [True, True, False, True, True]


def mixed(modalities: list[str], alpha: float = 1.0, draw: int = 0) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    pixels = torch.stack([torch.full((2, 2, 3), 50 * number, dtype=torch.uint8) for number in range(5)])
    plain = {"pixels": pixels, "labels": torch.eye(5), "has_text": torch.tensor(HAS_TEXT),
             "has_image": torch.tensor(HAS_IMAGE)}  # fmt: skip
    return plain, mix_pictures(plain, alpha, modalities, draw)


@pytest.mark.parametrize("modalities", [["image"], ["text", "image"]], ids=["an expert", "a fusion member"])
def test_pictures_are_mixed_in_the_share_that_labels_are_less_what_other_modalities_say(modalities: list[str]) -> None:
    partners = set()
    for draw in range(20):
        _, found = mixed(modalities, draw=draw)
        for row in (0, 1, 3, 4):
            label = found["labels"][row]
            assert float(label.sum()) == pytest.approx(1.0)
            moved = 1 - float(label[row])
            if moved == 0:  # drew itself
                continue
            (partner,) = (number for number in range(5) if number != row and label[number] > 0)
            partners.add(partner)
            share = moved * (2 if len(modalities) == 2 and HAS_TEXT[row] else 1)
            expected = (1 - share) * 50 * row + share * 50 * partner
            assert float(found["pixels"][row].float().mean()) == pytest.approx(expected, abs=0.51)
    assert partners == {0, 1, 3, 4}  # row 2 has no picture


def test_a_row_without_a_picture_stays_as_it_is() -> None:
    plain, found = mixed(["text", "image"])
    assert torch.equal(found["labels"][2], plain["labels"][2])
    assert torch.equal(found["pixels"][2], plain["pixels"][2])
    assert not torch.equal(found["pixels"], plain["pixels"])


def test_mixing_follows_from_its_draw() -> None:
    assert torch.equal(mixed(["image"], draw=5)[1]["pixels"], mixed(["image"], draw=5)[1]["pixels"])
    assert not torch.equal(mixed(["image"], draw=5)[1]["labels"], mixed(["image"], draw=6)[1]["labels"])


def test_one_picture_alone_has_none_to_be_mixed_with() -> None:
    plain, _ = mixed(["image"])
    one = {name: tensor[2:4] for name, tensor in plain.items()}
    assert mix_pictures(one, 1.0, ["image"], 0) is one


STILL = {"speed": 0.0, "noise": 0.0, "time_mask": 0.0, "frequency_mask": 0.0}


def sound() -> Any:
    """Play 0.25 s of three tones at 8000 samples a second."""
    seconds = np.arange(2000) / 8000
    return sum(0.2 * np.sin(2 * np.pi * hertz * seconds) for hertz in (200, 800, 2400)).astype(np.float32)


def heard(draw: int = 0, **settings: float) -> Any:
    return change_wave(sound(), AudioAugment.model_validate(STILL | settings), draw)


def test_a_recording_stays_as_it_is_where_nothing_is_to_change() -> None:
    for draw in range(3):
        np.testing.assert_allclose(heard(draw), sound(), atol=1e-6)


@pytest.mark.parametrize("key", STILL)
def test_each_setting_changes_recordings_by_its_draw(key: str) -> None:
    first, again, other = heard(1, **{key: 0.3}), heard(1, **{key: 0.3}), heard(2, **{key: 0.3})
    np.testing.assert_array_equal(first, again)
    assert first.dtype == np.float32
    assert first.shape != other.shape or np.abs(first - other).max() > 1e-3


def test_speed_changes_length_and_pitch_within_its_bound() -> None:
    lengths = [len(heard(draw, speed=0.2)) for draw in range(60)]
    assert 2000 / 1.2 - 2 <= min(lengths) < 1800
    assert 2300 < max(lengths) <= 2000 / 0.8 + 2
    faster = next(wave for wave in (heard(draw, speed=0.2) for draw in range(60)) if len(wave) < 1750)
    peak = np.abs(np.fft.rfft(faster, 8000)).argmax()
    assert min(abs(peak - hertz * 2000 / len(faster)) for hertz in (200, 800, 2400)) < 12


def test_noise_is_no_louder_than_said() -> None:
    loudness = [float(np.sqrt(np.square(heard(draw, noise=0.5) - sound()).mean())) for draw in range(40)]
    own = float(np.sqrt(np.square(sound()).mean()))
    assert max(loudness) < 0.55 * own
    assert max(loudness) > 0.3 * own


def test_a_stretch_no_longer_than_said_falls_silent() -> None:
    silent = [int((heard(draw, time_mask=0.4) == 0).sum()) for draw in range(40)]
    assert 400 < max(silent) <= 802


def test_a_band_is_taken_out_and_the_rest_stays() -> None:
    gone = set()
    for draw in range(40):
        levels = np.abs(np.fft.rfft(heard(draw, frequency_mask=0.3)))[[50, 200, 600]]
        assert (levels > 100).sum() >= 1
        gone |= set(np.flatnonzero(levels < 100).tolist())
    assert gone == {0, 1, 2}


def test_a_recording_of_one_sample_can_be_changed() -> None:
    augment = AudioAugment.model_validate(dict.fromkeys(STILL, 0.5))
    assert all(len(change_wave(np.ones(1, np.float32), augment, draw)) == 1 for draw in range(9))
