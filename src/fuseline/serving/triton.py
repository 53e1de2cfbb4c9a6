"""A bundle as a model of NVIDIA's Triton Inference Server.

    REPOSITORY/NAME/config.pbtxt
    REPOSITORY/NAME/labels.txt            of what the axis of classes counts
    REPOSITORY/NAME/bundle.json, …        what a client needs: tokenizer, labels, digests
    REPOSITORY/NAME/VERSION/model.onnx/   a folder, for the graph has its weights in a second file

Triton starts where the graph does: clients tokenize and decode. Version folders stay; config.pbtxt is of all of them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.errors import BundleError
from fuseline.records import Bundle
from fuseline.runtime.bundle import CARD, MODEL, read_bundle, task_of
from fuseline.runtime.session import open_session
from fuseline.runtime.signature import SIGNATURE

TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "int32": "TYPE_INT32", "int64": "TYPE_INT64", "float": "TYPE_FP32",
    "float16": "TYPE_FP16",
}  # fmt: skip
"""onnxruntime's names to Triton's."""
LABELS = "labels.txt"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Instances:
    """How many copies of the model run at once, and where."""

    count: int = 1
    gpu: bool = False


@dataclass(frozen=True)
class Tensor:
    """An input or output as the graph has it; -1 for an axis of any size, the axis of rows left out."""

    name: str
    dtype: str
    dims: tuple[int, ...]


def write_repository(
    folder: Path, repository: Path, name: str | None = None, version: int = 1, max_batch: int = 16,
    instances: Instances = Instances(),
) -> Path:  # fmt: skip
    """Write a verified bundle into a repository; return the model's folder.

    The bundle is copied first, and verified again as it was copied: it may change meanwhile.

    Args:
        name: the model's; the bundle's own if null.
        max_batch: rows that Triton may put together.

    Raises:
        BundleError: the bundle cannot be read, the name is none for a folder, or the version is there already.
    """
    bundle = read_bundle(folder)
    name = name or bundle.name
    if not NAME.fullmatch(name):
        raise BundleError(f"{name!r} is no name for a model; expected letters, digits, '.', '_' and '-'")
    home = repository / name
    target = home / str(version)
    if target.exists():
        raise BundleError(f"{target}: there already; versions stay as they are, so give another --version")
    part = home / f".{version}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        copied = _copy(folder, bundle, part)
        config = write_config(name, copied, *read_tensors(part / MODEL), max_batch, instances)
        (part / LABELS).write_text("".join(f"{label}\n" for label in task_of(copied).classes), encoding="utf-8")
        (part / "config.pbtxt").write_text(config, encoding="utf-8")
        _move(part, home, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return home


def _copy(folder: Path, bundle: Bundle, part: Path) -> Bundle:
    """Copy a bundle's files; return the copy's description, verified."""
    signed = [SIGNATURE] if (folder / SIGNATURE).is_file() else []
    for file in (CARD, *signed, *bundle.files):
        (part / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, part / file)
    return read_bundle(part)


def _move(part: Path, home: Path, target: Path) -> None:
    """Put the files in their places, the version's last: Triton may be looking.

    A signature of another version goes: it would not be that of the description beside it.
    """
    graph = part / f".{MODEL}" / MODEL
    graph.mkdir(parents=True)
    if not (part / SIGNATURE).is_file():
        (home / SIGNATURE).unlink(missing_ok=True)
    for path in sorted(path for path in part.rglob("*") if path.is_file()):
        name = path.relative_to(part).as_posix()
        place = (graph if name.startswith(MODEL) else home) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, place)
    os.replace(graph.parent, target)


def read_tensors(model: Path) -> tuple[list[Tensor], list[Tensor]]:
    """Read the graph's inputs and outputs."""
    session = open_session(model, ["CPUExecutionProvider"], 1)
    inputs, outputs = ([_tensor(each) for each in found] for found in (session.get_inputs(), session.get_outputs()))
    return inputs, outputs


def _tensor(given: Any) -> Tensor:
    dims = tuple(axis if isinstance(axis, int) else -1 for axis in given.shape[1:])
    return Tensor(given.name, TYPES[re.sub(r"tensor\((\w+)\)", r"\1", given.type)], dims)


def write_config(
    name: str, bundle: Bundle, inputs: Sequence[Tensor], outputs: Sequence[Tensor], max_batch: int,
    instances: Instances,
) -> str:  # fmt: skip
    """Write the model's configuration, a ModelConfig in protobuf's text format.

    Triton puts requests together when all their tensors are of equal shape, the axis of rows apart: texts of one
    length and pictures of one size. Others it runs one after the other; nothing is padded by it.
    """
    kind = "KIND_GPU" if instances.gpu else "KIND_CPU"
    labelled = f"label_filename: {_quoted(LABELS)}"
    parts = [
        f"# Made by `fuseline triton` of the bundle {bundle.name}; graph inputs as bundle.json says.",
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_quoted(MODEL)}",
        f"max_batch_size: {max_batch}",
        *(_block("input", each) for each in inputs),
        *(_block("output", each, labelled if each.name == "probabilities" else "") for each in outputs),
        f"instance_group [ {{ count: {instances.count} kind: {kind} }} ]",
        "dynamic_batching { max_queue_delay_microseconds: 2000 }",
        "version_policy: { latest { num_versions: 1 } }",
        *(_parameter(key, value) for key, value in _parameters(bundle).items()),
    ]
    return "\n".join(parts) + "\n"


def _block(kind: str, tensor: Tensor, more: str = "") -> str:
    """Write an input or output; without another axis than that of rows, its shape is empty."""
    shape = (
        "dims: [ 1 ] reshape: { shape: [ ] }" if not tensor.dims else f"dims: [ {', '.join(map(str, tensor.dims))} ]"
    )
    return (
        f"{kind} [ {{ name: {_quoted(tensor.name)} data_type: {tensor.dtype} {shape}{' ' + more if more else ''} }} ]"
    )


def _parameters(bundle: Bundle) -> Mapping[str, str]:
    return {"fuseline_data": bundle.data, "fuseline_code": bundle.code, "fuseline_task": bundle.task}


def _parameter(key: str, value: str) -> str:
    return f"parameters {{ key: {_quoted(key)} value: {{ string_value: {_quoted(value)} }} }}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True)
