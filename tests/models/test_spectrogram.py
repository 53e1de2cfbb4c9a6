"""Log-mels by one convolution are those of the textbook, and of Hugging Face's extractor."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from transformers import ASTFeatureExtractor

from fuseline.models.encoders.audio import Patches
from fuseline.models.spectrogram import LogMel, frame_kernel, mel_filters
from fuseline.training.modalities.audio import describe_spectrogram


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize(("window", "points"), [(200, 256), (256, 256), (25, 32)])
def test_the_kernel_takes_the_spectrum_of_the_windowed_frame(window: int, points: int) -> None:
    frame = noise(window).double()
    expected = torch.fft.rfft(frame * torch.hann_window(window, periodic=False, dtype=torch.float64), points)
    real, imaginary = (frame_kernel(window, points, 0.0, False)[:, 0].double() @ frame).chunk(2)
    torch.testing.assert_close(real, expected.real, atol=1e-5, rtol=0)
    torch.testing.assert_close(imaginary, expected.imag, atol=1e-5, rtol=0)


def test_centred_frames_do_not_see_an_offset() -> None:
    shifted, plain = (
        LogMel(8000, 20, 200, 80, 20.0, 0.0, True, 1e-6)(noise(1000)[None] + offset) for offset in (0.5, 0.0)
    )
    torch.testing.assert_close(shifted, plain, atol=1e-3, rtol=0)


def test_each_band_answers_to_its_own_pitch() -> None:
    log_mel = LogMel(8000, 20, 200, 80, 20.0, 0.0, True, 1e-6)
    seconds = torch.arange(2000) / 8000
    loudest = [
        int(log_mel(torch.sin(2 * torch.pi * hz * seconds)[None]).mean(2).argmax()) for hz in (200, 600, 1500, 3500)
    ]
    assert loudest == sorted(set(loudest))


def test_mel_filters_are_triangles_that_overlap_to_one() -> None:
    filters = mel_filters(16000, 40, 512, 20.0)
    assert (filters >= 0).all()
    inside = filters[:, 20:200].sum(0)
    torch.testing.assert_close(inside, torch.ones_like(inside), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [400, 560, 5000, 16000, 40000])
def test_patches_are_those_of_the_extractor_of_the_audio_spectrogram_transformer(samples: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the lowest of its 128 bands are narrower than its frequencies are apart
        extractor = ASTFeatureExtractor(max_length=128)
    wave = noise(samples)
    expected = extractor(wave.numpy(), sampling_rate=16000, return_tensors="np")["input_values"]
    found = Patches(**describe_spectrogram(extractor))(wave[None], torch.tensor([samples]))
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-3)
