"""Random changes of training rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fuseline.config.base import Section, Share


class TextAugment(Section):
    """Random changes of training texts, anew in each epoch, word by word."""

    drop: Share
    """Probability of leaving a word out; one word always stays."""
    swap: Share
    """Probability of a word and the next one changing places."""


class ImageAugment(Section):
    """Random changes of training pictures, anew in each epoch."""

    flip: Share
    """Probability of a horizontal flip."""
    degrees: Annotated[float, Field(ge=0)]
    """Largest rotation either way."""
    translate: Share
    """Largest shift, as a share of the side."""
    scale: Share
    """Largest change of scale either way: 0.2 gives 0.8 to 1.2."""
    color: Share
    """Strength of brightness, contrast and saturation jitter."""
    erase: Share
    """Probability of erasing a random rectangle."""
    mixup: Annotated[float, Field(ge=0)]
    """Each picture is laid over another one of its batch, with shares drawn from Beta(mixup, mixup) (Zhang et al.
    2018); the label moves by as much, less the share of the row's other modalities. 0 mixes nothing."""


class AudioAugment(Section):
    """Random changes of training recordings, anew in each epoch."""

    speed: Share
    """Largest change of speed, and pitch with it, either way: 0.1 gives 0.9 to 1.1 (Ko et al. 2015)."""
    noise: Annotated[float, Field(ge=0)]
    """Largest loudness of white noise, as a share of the recording's own."""
    time_mask: Share
    """Longest stretch that falls silent, as a share of the recording (Park et al. 2019, as the next)."""
    frequency_mask: Share
    """Widest band of pitches that is taken out, as a share of all, on a logarithmic scale."""


class Augment(Section):
    """Random changes of training examples, by modality; what is left out, or null, stays as it is."""

    text: TextAugment | None = None
    image: ImageAugment | None = None
    audio: AudioAugment | None = None

    def given(self) -> list[str]:
        """Return the modalities that are changed."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]
