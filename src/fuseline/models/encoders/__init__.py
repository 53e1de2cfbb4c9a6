"""One encoder per modality."""

from __future__ import annotations

from fuseline.models.encoders.base import Encoder
from fuseline.models.encoders.image import ImageEncoder
from fuseline.models.encoders.text import TextEncoder

ENCODERS: dict[str, type[Encoder]] = {"text": TextEncoder, "image": ImageEncoder}
"""By modality; the keys are those of fuseline.inputs.READERS."""
