"""Recordings: a small network from nothing, or Hugging Face's audio encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoFeatureExtractor

from fuseline import cache, config
from fuseline.errors import ModelError
from fuseline.inputs.audio import AudioReader, Wave
from fuseline.models.encoders.base import Encoder
from fuseline.training.augment import change_wave
from fuseline.training.modalities.base import FileModality
from fuseline.training.modalities.hub import find_model, load_weights

SPECTROGRAMS = ("audio-spectrogram-transformer",)
"""Models that take log-mels."""


class Audio(FileModality):
    """A recording's encoder; recordings are kept as samples at its rate."""

    name = "audio"
    settings: config.AudioCnn | config.AudioTransformer

    def __init__(self, settings: config.AudioCnn | config.AudioTransformer) -> None:
        super().__init__(settings)
        self._extractor: Any = None if isinstance(settings, config.AudioCnn) else load_extractor(settings)

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.settings.rate if isinstance(self.settings, config.AudioCnn) else int(self._extractor.sampling_rate)

    def build_reader(self) -> AudioReader:
        return AudioReader(self.rate, self.settings.max_seconds)

    def architecture(self) -> dict[str, Any]:
        if isinstance(self.settings, config.AudioCnn):
            return {"kind": "log-mel-cnn", **self.settings.model_dump(exclude={"max_seconds"})}
        found = load_config(self.settings)
        return {
            "kind": "hugging-face-audio",
            "architecture": {**found.to_diff_dict(), "model_type": found.model_type, "apply_spec_augment": False},
            "max_samples": int(self.settings.max_seconds * self.rate),
            "standardised": bool(self._extractor.do_normalize),
            "spectrogram": describe_spectrogram(self._extractor) if found.model_type in SPECTROGRAMS else None,
        }

    def load(self, encoder: Encoder) -> None:
        if isinstance(self.settings, config.AudioTransformer):
            load_weights(encoder.backbone, "audio", self.settings.name, self.settings.revision)  # type: ignore[arg-type]

    def describe(self) -> str:
        code = cache.code_of("inputs/audio")
        return f"{self.reader.describe()} {code} {cache.versions_of('soundfile', 'scipy', 'numpy')}"

    def keep(self, value: bytes) -> bytes:
        wave: Wave = self.reader.read(value)
        return wave.tobytes()

    def restore(self, kept: bytes) -> Wave:
        return np.frombuffer(bytearray(kept), np.float32)

    def build_change(self, augment: config.Augment) -> Callable[[Wave, int], Wave] | None:
        changes = augment.audio
        return None if changes is None else lambda wave, draw: change_wave(wave, changes, draw)

    @property
    def kept_bytes(self) -> int:
        return 4 * int(self.rate * self.settings.max_seconds)


def load_config(settings: config.AudioTransformer) -> Any:
    """Load an audio model's config.

    Raises:
        ModelError: it cannot be loaded, or is of a kind that is not taken.
    """
    try:
        found = AutoConfig.from_pretrained(**find_model("audio", settings.name, settings.revision))
    except (OSError, ValueError) as error:
        raise ModelError(f"encoders.audio.name: {settings.name!r} cannot be loaded: {error}") from error
    if found.model_type not in SPECTROGRAMS and not hasattr(found, "conv_kernel"):
        raise ModelError(
            f"encoders.audio.name: {settings.name!r} is a {found.model_type}; expected an encoder of samples such as "
            "wav2vec 2.0, HuBERT or WavLM, or the Audio Spectrogram Transformer"
        )
    return found


def load_extractor(settings: config.AudioTransformer) -> Any:
    """Load what says how a model wants its samples.

    Raises:
        ModelError: it cannot be loaded.
    """
    try:
        return AutoFeatureExtractor.from_pretrained(**find_model("audio", settings.name, settings.revision))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"encoders.audio.name: no preprocessor_config.json could be loaded from {settings.name!r}: {error}"
        ) from error


def describe_spectrogram(extractor: Any) -> dict[str, Any]:
    """Return the log-mels of an ASTFeatureExtractor, as models.encoders.audio.Patches takes them."""
    rate = int(extractor.sampling_rate)
    return {
        "frames": int(extractor.max_length),
        "mean": float(extractor.mean) if extractor.do_normalize else 0.0,
        "deviation": float(extractor.std) if extractor.do_normalize else 0.5,
        "log_mel": {
            "rate": rate, "mels": int(extractor.num_mel_bins), "window": rate * 25 // 1000, "hop": rate // 100,
            "lowest": 20.0, "preemphasis": 0.97, "centred": True, "floor": torch.finfo(torch.float32).eps,
        },
    }  # fmt: skip
