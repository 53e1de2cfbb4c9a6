"""Recordings: a small convolutional network that trains from nothing, and Hugging Face's audio encoders.

All give the same features for a recording alone as in a batch: what is padded does not count.

Shape letters: B batch, L samples, M mel bands, C channels, T frames, D feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

from fuseline.models.encoders.base import Encoded, Encoder, mean_over
from fuseline.models.spectrogram import LogMel


def silence_padding(waveform_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Put zeros behind each recording's end, whatever stands there."""
    position_L = torch.arange(waveform_BL.shape[1], device=waveform_BL.device)
    return waveform_BL * (position_L < lengths_B[:, None])


def up_to(count: int, counts_B: Tensor) -> Tensor:
    """Return bool [B, count]: the first `counts_B` places of each row, one at least."""
    return torch.arange(count, device=counts_B.device) < counts_B.clamp(min=1)[:, None]


class AudioCnn(Encoder):
    """A log-mel spectrogram under a small residual network.

    Args:
        rate: samples per second.
        mels: mel bands.
        window_ms: length of a frame.
        hop_ms: from frame to frame.
        widths: channels of each block; each halves both axes.
    """

    def __init__(self, rate: int, mels: int, window_ms: float, hop_ms: float, widths: Sequence[int]) -> None:
        super().__init__()
        window, hop = round(rate * window_ms / 1000), round(rate * hop_ms / 1000)
        self.spectrogram = LogMel(rate, mels, window, hop, lowest=20.0, preemphasis=0.0, centred=True, floor=1e-6)
        self.backbone = ConvStack(widths)
        self.size = widths[-1]

    def forward(self, waveform: Tensor, waveform_lengths: Tensor) -> Encoded:  # type: ignore[override]
        """Encode samples, float [B, L], of which so many count, int64 [B]."""
        padded_BL = F.pad(silence_padding(waveform, waveform_lengths), (0, self.spectrogram.window))
        energies_BMT = self.spectrogram(padded_BL)
        frames_B = waveform_lengths.clamp(max=waveform.shape[1]) // self.spectrogram.hop + 1
        mask_BT = up_to(energies_BMT.shape[2], frames_B)
        states_BTD, mask_BT = self.backbone(standardise(energies_BMT, mask_BT, 1e-5), mask_BT)
        return Encoded(mean_over(states_BTD, mask_BT), states_BTD, mask_BT)


def standardise(energies_BMT: Tensor, mask_BT: Tensor, least: float) -> Tensor:
    """Bring each recording to mean 0 and deviation 1 over all bands and frames that are there: loudness is no sign.

    Args:
        least: added to the variance.
    """
    there_B1T = mask_BT[:, None].to(energies_BMT.dtype)
    count_B11 = there_B1T.sum(2, keepdim=True) * energies_BMT.shape[1]
    centred_BMT = (energies_BMT - (energies_BMT * there_B1T).sum((1, 2), keepdim=True) / count_B11) * there_B1T
    return centred_BMT / (centred_BMT.square().sum((1, 2), keepdim=True) / count_B11 + least).sqrt()


class ConvStack(nn.Module):
    """Blocks of two convolutions, the first of which halves bands and frames; bands are averaged at the end."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            ConvBlock(before, width) for before, width in zip([1, *widths[:-1]], widths, strict=True)
        )

    def forward(self, energies_BMT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [B, T', D] and their mask."""
        maps_BCMT = energies_BMT[:, None]
        for block in self.blocks:
            maps_BCMT, mask_BT = block(maps_BCMT, mask_BT)
        return maps_BCMT.mean(2).transpose(1, 2), mask_BT


class ConvBlock(nn.Module):
    """Two convolutions with norms, the second beside a shortcut. Frames that are not there stay zero throughout."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.halve = nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False)
        self.norm = MaskedNorm(width)
        self.again = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm_again = MaskedNorm(width)

    def forward(self, maps_BCMT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps of half the height and length, and their mask."""
        mask_BT = mask_BT[:, ::2]  # the centre of each window of the halving convolution
        halved_BCMT = F.relu(self.norm(self.halve(maps_BCMT), mask_BT))
        return F.relu(halved_BCMT + self.norm_again(self.again(halved_BCMT), mask_BT)), mask_BT


class MaskedNorm(nn.BatchNorm2d):
    """Batch norm that learns from the frames that are there only, and leaves zeros at the others."""

    def forward(self, maps_BCMT: Tensor, mask_BT: Tensor) -> Tensor:  # type: ignore[override]
        """Normalise."""
        if not self.training:
            return super().forward(maps_BCMT) * mask_BT[:, None, None]
        there = mask_BT.nonzero(as_tuple=True)
        frames_NCM1 = super().forward(maps_BCMT.permute(0, 3, 1, 2)[there][..., None])
        empty_BTCM = torch.zeros_like(maps_BCMT.permute(0, 3, 1, 2))
        return empty_BTCM.to(frames_NCM1.dtype).index_put(there, frames_NCM1[..., 0]).permute(0, 2, 3, 1)


class AudioTransformer(Encoder):
    """A Hugging Face audio encoder: wav2vec 2.0 and its kin on samples, the Audio Spectrogram Transformer on log-mels.

    Args:
        architecture: the model's config.
        max_samples: longest recording.
        standardised: whether each recording is brought to mean 0 and deviation 1 first.
        spectrogram: of a model on log-mels: frames, mean and deviation, and the options of LogMel.
    """

    def __init__(
        self, architecture: dict[str, Any], max_samples: int, standardised: bool, spectrogram: dict[str, Any] | None
    ) -> None:
        super().__init__()
        options = dict(architecture)
        config = AutoConfig.for_model(options.pop("model_type"), **options)
        self.backbone = AutoModel.from_config(config)
        self.max_samples, self.standardised = max_samples, standardised
        self.spectrogram = None if spectrogram is None else Patches(**spectrogram)
        # The first norm of such a model spans the whole recording, padding included: all are made equally long.
        self.whole = getattr(config, "feat_extract_norm", None) == "group"
        self.least = receptive_field(getattr(config, "conv_kernel", ()), getattr(config, "conv_stride", ()))
        self.size: int = config.hidden_size

    def forward(self, waveform: Tensor, waveform_lengths: Tensor) -> Encoded:  # type: ignore[override]
        """Encode samples, float [B, L], of which so many count, int64 [B]."""
        lengths_B = waveform_lengths.clamp(min=1, max=waveform.shape[1])
        wave_BL = silence_padding(waveform, lengths_B)
        if self.spectrogram is not None:
            return self._encode_spectrogram(self.spectrogram(wave_BL, lengths_B))
        mask_BL = up_to(waveform.shape[1], lengths_B)
        if self.standardised:
            wave_BL = standardise(wave_BL[:, None], mask_BL, 1e-7)[:, 0]
        pad = self.max_samples - waveform.shape[1] if self.whole else self.least
        padded_BL = F.pad(wave_BL, (0, pad))
        seen_B = lengths_B.clamp(min=self.least)  # silence fills the window of the first frame
        seen_BL = up_to(padded_BL.shape[1], seen_B).long()
        states_BTD = self.backbone(padded_BL, attention_mask=seen_BL).last_hidden_state
        frames_B = self.backbone._get_feat_extract_output_lengths(seen_B)
        mask_BT = up_to(states_BTD.shape[1], frames_B)
        return Encoded(mean_over(states_BTD, mask_BT), states_BTD, mask_BT)

    def _encode_spectrogram(self, energies_BTM: Tensor) -> Encoded:
        found = self.backbone(energies_BTM)
        mask_BT = torch.ones_like(found.last_hidden_state[..., 0], dtype=torch.bool)
        return Encoded(found.pooler_output, found.last_hidden_state, mask_BT)


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Return how many samples a stack of convolutions needs for one frame."""
    samples = 1
    for kernel, stride in reversed(list(zip(kernels, strides, strict=True))):
        samples = (samples - 1) * stride + kernel
    return samples


class Patches(nn.Module):
    """Log-mels of a fixed number of frames, as the Audio Spectrogram Transformer takes them.

    Args:
        frames: T; shorter recordings are filled up with zeros, longer ones cut.
        mean: subtracted from the log-mels.
        deviation: they are divided by twice as much.
        log_mel: options of LogMel.
    """

    def __init__(self, frames: int, mean: float, deviation: float, log_mel: dict[str, Any]) -> None:
        super().__init__()
        self.frames, self.mean, self.deviation = frames, mean, deviation
        self.log_mel = LogMel(**log_mel)

    def forward(self, waveform_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Map samples to [B, T, M]."""
        longest = self.log_mel.window + (self.frames - 1) * self.log_mel.hop
        energies_BMT: Tensor = self.log_mel(F.pad(waveform_BL, (0, longest))[:, :longest])
        whole_B = (lengths_B - self.log_mel.window).clamp(min=0) // self.log_mel.hop + 1
        energies_BMT = energies_BMT * up_to(self.frames, whole_B)[:, None]
        return ((energies_BMT - self.mean) / (2 * self.deviation)).transpose(1, 2)
