"""Raw bytes and strings to the graph's inputs: the one path that training, evaluation and serving share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fuseline.inputs.audio import AudioReader
from fuseline.inputs.base import Input, Reader, flag
from fuseline.inputs.boxes import BOXES
from fuseline.inputs.boxes import INPUT as BOXES_INPUT
from fuseline.inputs.image import COUNTS, SEVERAL_PIXELS, ImageReader
from fuseline.inputs.text import TextReader

T = TypeVar("T")
READERS: dict[str, type[Reader]] = {reader.name: reader for reader in (TextReader, ImageReader, AudioReader)}
"""Every modality there is, in the order in which they are named everywhere."""


OPTIONAL = {"text": (BOXES,), "image": (COUNTS.name,)}
"""Inputs that only some graphs have, by modality."""


def own_inputs(modality: str, inputs: Mapping[str, T]) -> dict[str, T]:
    """Pick the tensors of one modality, its flag apart."""
    own = {each.name: inputs[each.name] for each in READERS[modality].inputs}
    return own | {name: inputs[name] for name in OPTIONAL.get(modality, ()) if name in inputs}


WORDS = Input("words", "int64", ("batch", "words"), "each word's first token; below 0 for none", traced=1)
"""Of a graph that scores words."""


def inputs_of(
    modalities: Sequence[str], words: bool = False, several: bool = False, layout: bool = False
) -> dict[str, Input]:
    """Return the graph's inputs for these modalities by name, each modality's flag after its tensors.

    Args:
        words: whether words are scored.
        several: whether rows may have several pictures.
        layout: whether it is seen where tokens stand in a picture.
    """
    own = {name: READERS[name].inputs for name in modalities}
    if several and "image" in own:
        own["image"] = (SEVERAL_PIXELS, COUNTS)
    if layout:
        own["text"] = (*own["text"], BOXES_INPUT)
    inputs = {
        each.name: each for name in modalities for each in (*own[name], Input(flag(name), "bool", ("batch",), traced=1))
    }
    return inputs | ({WORDS.name: WORDS} if words else {})
