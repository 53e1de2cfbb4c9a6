"""Log-mel spectrograms inside the graph: a convolution and a matrix product, in torch as in any ONNX runtime.

Shape letters: B batch, L samples, W window, F frequencies, M mel bands, T frames.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LogMel(nn.Module):
    """Samples to the logarithm of the energy in mel bands, frame by frame.

    All that happens to a frame before its power is taken is linear (offset, pre-emphasis, window, Fourier transform),
    so that it is one matrix, and the frames are a convolution.

    Args:
        rate: samples per second.
        mels: bands.
        window: W, samples per frame.
        hop: samples from frame to frame.
        lowest: lower edge of the lowest band, in Hz; the highest ends at half the rate.
        preemphasis: share of each sample's predecessor that is subtracted from it; 0 leaves samples as they are.
        centred: whether each frame's mean is subtracted first.
        floor: energies below it count as it.
    """

    kernel_F1W: Tensor
    mel_MF: Tensor

    def __init__(
        self, rate: int, mels: int, window: int, hop: int, lowest: float, preemphasis: float, centred: bool,
        floor: float,
    ) -> None:  # fmt: skip
        super().__init__()
        self.window, self.hop, self.floor = window, hop, floor
        points = 1 << (window - 1).bit_length()
        self.register_buffer("kernel_F1W", frame_kernel(window, points, preemphasis, centred))
        self.register_buffer("mel_MF", mel_filters(rate, mels, points, lowest))

    def forward(self, waveform_BL: Tensor) -> Tensor:
        """Map samples to [B, M, T], with a frame wherever a whole window fits."""
        parts_BFT = F.conv1d(waveform_BL[:, None], self.kernel_F1W, stride=self.hop)
        real_BFT, imaginary_BFT = parts_BFT.chunk(2, dim=1)
        return (self.mel_MF @ (real_BFT.square() + imaginary_BFT.square())).clamp(min=self.floor).log()


def frame_kernel(window: int, points: int, preemphasis: float, centred: bool) -> Tensor:
    """Return what takes a frame to the real, then the imaginary part of its spectrum: [points + 2, 1, window].

    Hann window, symmetric. The first sample of a frame has no predecessor, and stands for its own (as in Kaldi).
    """
    steps_WW = np.eye(window)
    if centred:
        steps_WW = steps_WW - 1 / window
    if preemphasis:
        before_WW = np.eye(window, k=-1)
        before_WW[0, 0] = 1
        steps_WW = steps_WW - preemphasis * before_WW @ steps_WW
    steps_WW = np.hanning(window)[:, None] * steps_WW
    angle_FW = 2 * np.pi * np.outer(np.arange(points // 2 + 1), np.arange(window)) / points
    spectrum_FW = np.concatenate([np.cos(angle_FW), -np.sin(angle_FW)]) @ steps_WW
    return torch.from_numpy(spectrum_FW.astype(np.float32))[:, None]


def mel_filters(rate: int, mels: int, points: int, lowest: float) -> Tensor:
    """Return triangles [mels, points / 2 + 1], evenly spaced and straight on the mel scale 1127 ln(1 + f / 700).

    Source: Hidden Markov Model Toolkit and Kaldi. The last frequency, half the rate, is in no band.
    """
    low, high = (1127 * math.log1p(edge / 700) for edge in (lowest, rate / 2))
    edge_M = np.linspace(low, high, mels + 2)
    mel_F = 1127 * np.log1p(np.arange(points // 2 + 1) * rate / points / 700)
    rising_MF = (mel_F - edge_M[:-2, None]) / (edge_M[1:-1] - edge_M[:-2])[:, None]
    falling_MF = (edge_M[2:, None] - mel_F) / (edge_M[2:] - edge_M[1:-1])[:, None]
    return torch.from_numpy(np.minimum(rising_MF, falling_MF).clip(min=0).astype(np.float32))
