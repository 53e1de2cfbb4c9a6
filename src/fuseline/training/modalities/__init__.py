"""The modalities in training, one file each. The only place that fetches pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.config import Encoders
from fuseline.training.modalities.audio import Audio
from fuseline.training.modalities.base import Modality
from fuseline.training.modalities.image import Image
from fuseline.training.modalities.text import Text

KINDS: dict[str, type[Modality]] = {"text": Text, "image": Image, "audio": Audio}


def build_modalities(
    encoders: Encoders, names: Sequence[str], words: bool = False, layout: bool = False
) -> dict[str, Modality]:
    """Return the modalities `names`, as params.yaml describes them.

    Args:
        words: whether words are scored, which texts are then cut into.
        layout: whether texts come with where their stretches stand in the picture.
    """
    found = {name: KINDS[name](getattr(encoders, name)) for name in names}
    for modality in found.values():
        modality.words, modality.layout = words, layout
    return found
