"""Encoded recordings to samples.

Shape letters: B batch, L samples.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from fuseline.errors import DataError
from fuseline.inputs.base import Array, Folder, Input, Reader

if TYPE_CHECKING:
    import soundfile

Wave = NDArray[np.float32]
"""[L], one channel."""
SETTINGS = "audio.json"
RATES = (1000, 384_000)
"""Samples per second that a recording may have, in Hz: a header may say anything, and memory goes by it."""
BLOCK = 1 << 22
"""Samples, of all channels together, that are decoded at once."""
FINEST = 50_000
"""Of the ratio of two rates, the largest denominator: the filter has 20 coefficients for each unit of it."""


class AudioReader(Reader):
    """Decodes, mixes to one channel and resamples; an item is float32 [L], full scale at 1.

    Args:
        rate: samples per second that the graph takes.
        max_seconds: longer recordings are cut.
    """

    name = "audio"
    column = "audio.path"
    inputs = (
        Input("waveform", "float32", ("batch", "samples"), "one channel, full scale at 1"),
        Input("waveform_lengths", "int64", ("batch",), "samples of each row that count", traced=1 << 20),
    )
    files = (SETTINGS,)

    def __init__(self, rate: int, max_seconds: float) -> None:
        self.rate, self.max_seconds = rate, max_seconds

    def read(self, value: bytes) -> Wave:
        return decode_audio(value, self.rate, self.max_seconds)

    def collate(self, items: Sequence[Wave | None]) -> dict[str, Array]:
        lengths_B = np.array([0 if item is None else len(item) for item in items], dtype=np.int64)
        waveform_BL = np.zeros((len(items), max(1, lengths_B.max(initial=0))), dtype=np.float32)
        for row, item in zip(waveform_BL, items, strict=True):
            if item is not None:
                row[: len(item)] = item
        return {"waveform": waveform_BL, "waveform_lengths": lengths_B}

    def weigh(self, item: Wave) -> int:
        return item.nbytes

    def save(self, folder: Path) -> None:
        document = {"max_seconds": self.max_seconds, "rate": self.rate}
        (folder / SETTINGS).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Folder) -> Self:
        document = json.loads((folder / SETTINGS).read_bytes())
        return cls(int(document["rate"]), float(document["max_seconds"]))

    def describe(self) -> str:
        return f"rate {self.rate} seconds {self.max_seconds}"


def decode_audio(data: bytes, rate: int, max_seconds: float) -> Wave:
    """Decode a recording to one channel at `rate`, float32 [L] of at most `max_seconds`; the rest is not decoded.

    Raises:
        DataError: the bytes are no readable recording, or hold no sample.
    """
    import soundfile  # here: whoever takes texts and pictures alone need not wait for it

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            given = sound.samplerate
            if not RATES[0] <= given <= RATES[1]:
                raise DataError(f"recording of {given:,} Hz; expected {RATES[0]:,} to {RATES[1]:,}: resample it")
            wave = _mix(sound, math.ceil(max_seconds * given))
    except (soundfile.SoundFileError, ValueError, RuntimeError, TypeError) as error:
        why = getattr(error, "error_string", error)  # without where the bytes are in memory
        raise DataError(f"recording cannot be decoded: {why}") from error
    if not len(wave):
        raise DataError("recording holds no samples")
    if not np.isfinite(wave).all():
        raise DataError("recording holds samples that are no finite numbers")
    return resample(wave, given, rate)[: max(1, int(max_seconds * rate))]


def _mix(sound: soundfile.SoundFile, most: int) -> Wave:
    """Read at most so many samples, and average the channels, of which a header can claim a thousand."""
    parts = [np.zeros(0, dtype=np.float32)]
    while most > 0:
        block = sound.read(min(most, max(1, BLOCK // sound.channels)), dtype="float32", always_2d=True)
        if not len(block):
            break
        parts.append(block.mean(1))
        most -= len(block)
    return np.concatenate(parts)


def resample(wave: Wave, given: int, rate: int) -> Wave:
    """Bring samples from one rate to another, by polyphase filtering."""
    if given == rate:
        return wave
    from scipy.signal import resample_poly  # as above

    ratio = ratio_of(rate, given)
    resampled: Wave = resample_poly(wave, ratio.numerator, ratio.denominator).astype(np.float32)
    return resampled


def ratio_of(rate: int, given: int) -> Fraction:
    """Return by what the number of samples grows.

    Where the ratio in lowest terms has a denominator above FINEST, it is the nearest one that has not. Tried with all
    RATES to 8,000, 16,000, 44,100 and 48,000 Hz, it is off by one part in 100,000 at most, which moves the end of a
    recording of 10 s by 0.1 ms.
    """
    return Fraction(rate, given).limit_denominator(FINEST)
