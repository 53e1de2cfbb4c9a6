"""Recordings of any form become samples at the graph's rate, or the error says why not."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from fuseline.errors import DataError
from fuseline.inputs import audio
from fuseline.inputs.audio import RATES, AudioReader, decode_audio, ratio_of

Tone = Callable[..., bytes]


def loudest_hz(wave: np.ndarray, rate: int) -> float:
    power = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.fft.rfftfreq(len(wave), 1 / rate)[power.argmax()])


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 44100, 48000])
@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_a_tone_keeps_its_pitch_and_length_at_any_rate_and_in_any_form(tone: Tone, rate: int, form: str) -> None:
    wave = decode_audio(tone(440, seconds=0.5, rate=rate, form=form), 8000, 2.0)
    assert wave.dtype == np.float32
    assert len(wave) == pytest.approx(4000, abs=2)
    assert loudest_hz(wave, 8000) == pytest.approx(440, abs=3)
    assert float(np.abs(wave).max()) == pytest.approx(0.5, abs=0.06)


def test_a_tone_above_what_the_rate_can_hold_is_filtered_out(tone: Tone) -> None:
    wave = decode_audio(tone(6000, seconds=0.5, rate=44100), 8000, 2.0)
    assert float(np.abs(wave[200:-200]).max()) < 0.01


def test_channels_are_averaged() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.stack([np.full(800, 0.5), np.full(800, -0.25)], axis=1), 8000, format="WAV")
    np.testing.assert_allclose(decode_audio(buffer.getvalue(), 8000, 1.0), 0.125, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100])
def test_what_is_longer_than_the_bound_is_cut(tone: Tone, rate: int) -> None:
    assert len(decode_audio(tone(440, seconds=3.0, rate=rate), 8000, 0.25)) == 2000


def test_a_recording_of_one_sample_is_one(tone: Tone) -> None:
    assert len(decode_audio(tone(440, seconds=1 / 8000), 8000, 1.0)) == 1


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "cannot be decoded"), (b"RIFF....", "cannot be decoded"), (b"no sound at all", "cannot be decoded")],
)
def test_what_is_no_recording_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=words) as refused:
        decode_audio(data, 8000, 1.0)
    assert "0x" not in str(refused.value)  # a server tells nobody its addresses


def test_a_recording_without_samples_is_refused(tone: Tone) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        decode_audio(tone(440, seconds=0), 8000, 1.0)


def test_samples_that_are_no_numbers_are_refused() -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([0.0, np.nan], np.float32), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(DataError, match="no finite numbers"):
        decode_audio(buffer.getvalue(), 8000, 1.0)


def claim(data: bytes, rate: int) -> bytes:
    """Have a WAV's head tell another rate."""
    return data[:24] + struct.pack("<I", rate) + data[28:]


@pytest.mark.parametrize("rate", [1, 999, 384_001, 2**31 - 1])
def test_a_head_that_claims_an_impossible_rate_is_refused(tone: Tone, rate: int) -> None:
    with pytest.raises(DataError, match=f"recording of {rate:,} Hz; expected 1,000 to 384,000"):
        decode_audio(claim(tone(440, seconds=1.0), rate), 16_000, 10.0)


@pytest.mark.parametrize("rate", [1000, 384_000])
def test_a_rate_at_the_bounds_is_taken(tone: Tone, rate: int) -> None:
    assert len(decode_audio(claim(tone(440, seconds=1.0), rate), 16_000, 1.0)) == min(16_000, 8000 * 16_000 // rate + 1)


def peak_of(data: bytes) -> tuple[np.ndarray, int]:
    decode_audio(data[:4] + data[4:], 16_000, 10.0)  # what is imported does not count
    tracemalloc.start()
    wave = decode_audio(data, 16_000, 10.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return wave, peak


def test_a_rate_that_shares_no_factor_takes_no_large_filter(tone: Tone) -> None:
    wave, peak = peak_of(claim(tone(440, seconds=1.0), 383_987))
    assert len(wave) == pytest.approx(8000 * 16_000 / 383_987, abs=1)
    assert peak < 60_000_000


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
def test_a_ratio_is_off_by_one_part_in_a_hundred_thousand_at_most(rate: int) -> None:
    worst = {8000: 200_002, 16_000: 304_003, 44_100: 308_703, 48_000: 192_002}[rate]
    for given in (worst, *range(RATES[0], RATES[1] + 1, 97)):
        assert abs(ratio_of(rate, given) * given / rate - 1) <= Fraction(1, 100_000)


def test_a_thousand_channels_are_mixed_without_all_of_them_being_held(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer, loud = io.BytesIO(), np.zeros((4096, 1024), np.float32)
    loud[:, 0] = np.linspace(0, 0.9, 4096)
    soundfile.write(buffer, loud, 16_000, format="WAV", subtype="PCM_U8")
    whole, _ = peak_of(buffer.getvalue())
    monkeypatch.setattr(audio, "BLOCK", 1 << 16)
    wave, peak = peak_of(buffer.getvalue())
    np.testing.assert_array_equal(wave, whole)
    assert peak < 4_000_000 < loud.nbytes


def test_a_batch_is_filled_up_with_zeros_and_says_what_counts() -> None:
    found = AudioReader(8000, 1.0).collate([np.ones(3, np.float32), None, np.ones(5, np.float32)])
    assert found["waveform"].tolist() == [[1, 1, 1, 0, 0], [0] * 5, [1] * 5]
    assert found["waveform_lengths"].tolist() == [3, 0, 5]
    assert AudioReader(8000, 1.0).collate([None, None])["waveform"].shape == (2, 1)


def test_a_reader_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    AudioReader(22050, 1.5).save(tmp_path)
    found = AudioReader.open(tmp_path)
    assert (found.rate, found.max_seconds) == (22050, 1.5)
    assert [path.name for path in tmp_path.iterdir()] == list(AudioReader.files)
