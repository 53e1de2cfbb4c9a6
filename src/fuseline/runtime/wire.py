"""Where a graph keeps its weights, told from its bytes: the onnx package takes longer to import than all else here.

An ONNX file is a protobuf message: fields, each a key (number and wire type) and a value.
"""

from __future__ import annotations

from collections.abc import Iterator

from fuseline.errors import BundleError

VARINT, WORD, BYTES, HALF_WORD = 0, 1, 2, 5
SIZES = {WORD: 8, HALF_WORD: 4}
DEEPEST = 100
"""Messages within messages, as protobuf's own parsers allow."""
PARTS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
    "entry": {},
}
"""By message of onnx.proto, the fields on the way to `TensorProto.external_data`, and what they hold."""


def external_files(model: bytes) -> set[str]:
    """Return all places that tensors of a graph, in subgraphs and functions too, name as the file that holds them.

    Raises:
        BundleError: the bytes are no protobuf message.
    """
    try:
        return set(_walk(memoryview(model), "model", 0))
    except (IndexError, UnicodeDecodeError) as error:
        raise BundleError("the graph's bytes are no ONNX model; export the bundle again") from error


def _walk(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise IndexError
    entry: dict[int, list[memoryview]] = {}
    for number, value in _fields(message):
        if kind == "entry":
            entry.setdefault(number, []).append(value)
        elif part := PARTS[kind].get(number):
            yield from _walk(value, part, depth + 1)
    if any(bytes(key) == b"location" for key in entry.get(1, [])):
        yield from (bytes(value).decode() for value in entry.get(2, []))


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield the number and value of each field that holds bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key >= 1 << 32:  # protobuf drops what is above, and would read another field than is read here
            raise IndexError
        kind = key & 7
        if kind == VARINT:
            _, at = _varint(message, at)
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        else:
            size = SIZES.get(kind, len(message))  # groups are of no ONNX file
        if at + size > len(message):
            raise IndexError
        if kind == BYTES:
            yield key >> 3, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it has ended."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise IndexError
