"""What answers rows are the very bytes that bundle.json vouches for, and no others."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import fuseline
from fuseline.errors import BundleError
from fuseline.inputs import image as image_inputs
from fuseline.records import BundleFile, sha256_of
from fuseline.runtime import Predictor, Row
from fuseline.runtime.bundle import Loaded, load_bundle, read_bundle
from fuseline.runtime.wire import external_files

CPU = ["CPUExecutionProvider"]


def vouch(folder: Path, name: str) -> None:
    """Let bundle.json list a file as it is now."""
    document = json.loads((folder / "bundle.json").read_text())
    file = BundleFile(sha256=sha256_of(folder / name), bytes=(folder / name).stat().st_size)
    document["files"][name] = file.model_dump()
    (folder / "bundle.json").write_text(json.dumps(document))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "the first byte": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "a byte in the middle": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 128]) + data[len(data) // 2 + 1 :]
    ),
    "the last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "one byte more": lambda data: data + b"\0",
    "one byte less": lambda data: data[:-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_in_any_file_is_refused_before_a_session_is_made(change: str, copy: Path, no_session: None) -> None:
    names = sorted(read_bundle(copy).files)
    for name in names:
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(CHANGES[change](data))
        for look in (Predictor, read_bundle):
            with pytest.raises(BundleError, match=f"{name}: altered"):
                look(copy)
        (copy / name).write_bytes(data)
    assert {"model.onnx", "model.onnx.data", "tokenizer.json", "README.md"} <= set(names)
    read_bundle(copy)


@pytest.mark.parametrize("name", ["image.json", "model.onnx.data2", "ort_config.json", "more/weights.bin"])
def test_a_file_that_nobody_vouches_for_is_refused(name: str, copy: Path, no_session: None) -> None:
    (copy / name).parent.mkdir(exist_ok=True)
    (copy / name).write_text('{"side": 8, "shorter": null, "kernel": "bilinear"}')
    with pytest.raises(BundleError, match=f"{name}: bundle.json does not list it; remove it"):
        Predictor(copy)


def test_evidence_and_hidden_files_need_no_listing(copy: Path) -> None:
    (copy / "evidence").mkdir()
    (copy / "evidence" / "report.html").write_text("page")
    (copy / ".DS_Store").write_bytes(b"\0")
    assert read_bundle(copy).name == "tiny"


def test_a_file_that_is_swapped_after_the_check_is_not_used(bundle: Path, copy: Path, picture: Any) -> None:
    expected = next(Predictor(bundle, CPU).answer([Row("the rose", picture())])).logits
    loaded = load_bundle(copy)
    for name in loaded.bundle.files:
        (copy / name).write_bytes(b"swapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fuseline.runtime.predictor.load_bundle", lambda *_: loaded)
        answered = next(Predictor(copy, CPU).answer([Row("the rose", picture())])).logits
    np.testing.assert_array_equal(answered, expected)


def test_settings_that_are_not_listed_are_not_found() -> None:
    loaded = Loaded.__new__(Loaded)
    object.__setattr__(loaded, "files", {})
    assert image_inputs.ImageReader.open(loaded).several is None


def lead_out(copy: Path, place: str) -> None:
    """Let the graph take its weights from elsewhere, and bundle.json vouch for that graph."""
    model = onnx.load(copy / "model.onnx", load_external_data=False)
    changed = 0
    for tensor in model.graph.initializer:
        for pair in tensor.external_data:
            if pair.key == "location":
                pair.value, changed = place, changed + 1
    assert changed
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    vouch(copy, "model.onnx")


@pytest.mark.parametrize("place", ["../weights.bin", "/etc/passwd", "./model.onnx.data", "link.data", "", "a\\b"])
def test_weights_from_elsewhere_are_refused_before_onnxruntime_sees_the_graph(
    place: str, copy: Path, no_session: None
) -> None:
    (copy.parent / "weights.bin").write_bytes((copy / "model.onnx.data").read_bytes())
    lead_out(copy, place)
    with pytest.raises(BundleError, match=r"its weights are to come from .*, which bundle\.json does not list"):
        Predictor(copy)


def test_a_listed_link_to_weights_outside_is_refused(copy: Path, no_session: None) -> None:
    (copy / "model.onnx.data").rename(copy.parent / "weights.bin")
    (copy / "model.onnx.data").symlink_to(copy.parent / "weights.bin")
    with pytest.raises(BundleError, match="lies outside the bundle"):
        Predictor(copy)


def outside(name: str, place: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=1, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=place)
    return tensor


def test_weights_are_found_wherever_a_graph_may_keep_them() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=outside("v", "in a branch's constant"))], "inner", [], [],
        [outside("w", "in a branch")],
    )  # fmt: skip
    sparse = onnx.SparseTensorProto(values=outside("s", "in sparse values"), indices=outside("i", "in indices"))
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    listed = helper.make_node("Custom", [], ["z"], many=[outside("m", "in a list")])
    graph = helper.make_graph([node, listed], "g", [], [], [outside("t", "at the top")], sparse_initializer=[sparse])
    model = helper.make_model(graph)
    model.functions.add(name="f").node.append(helper.make_node("Constant", [], ["c"], value=outside("f", "in f")))
    model.training_info.add().algorithm.initializer.append(outside("a", "in training"))
    assert external_files(model.SerializeToString()) == {
        "in a branch's constant", "in a branch", "in sparse values", "in indices", "in a list", "at the top", "in f",
        "in training",
    }  # fmt: skip


def test_the_files_of_a_real_graph_are_those_that_onnx_finds(bundle: Path) -> None:
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    found = {pair.value for each in model.graph.initializer for pair in each.external_data if pair.key == "location"}
    assert external_files((bundle / "model.onnx").read_bytes()) == found == {"model.onnx.data"}


@pytest.mark.parametrize("data", [b"\x3a", b"\x3a\x7f", b"\xff" * 20, b"\x3b", b"no graph"], ids=repr)
def test_bytes_that_are_no_graph_are_refused(data: bytes, copy: Path, no_session: None) -> None:
    (copy / "model.onnx").write_bytes(data)
    vouch(copy, "model.onnx")
    with pytest.raises(BundleError, match="no ONNX model"):
        Predictor(copy)


def test_messages_within_messages_without_end_are_refused() -> None:
    data = b""
    for _ in range(300):  # graph → node → attribute → graph …
        attribute = b"\x32" + size(len(data)) + data
        node = b"\x2a" + size(len(attribute)) + attribute
        data = b"\x0a" + size(len(node)) + node
    with pytest.raises(BundleError, match="no ONNX model"):
        external_files(b"\x3a" + size(len(data)) + data)


def size(number: int) -> bytes:
    """Write a number as protobuf does."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def test_nothing_in_the_package_reads_or_writes_pickles() -> None:
    root, looked, found = Path(fuseline.__file__).parent, 0, []
    for path in root.rglob("*.py"):
        looked += 1
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            unsafe = any(name.split(".")[0] in UNSAFE for name in names)
            call = ast.unparse(node) if isinstance(node, ast.Call) else ""
            unpickles = (
                call.startswith(("torch.load(", "torch.save(", "pd.read_pickle(")) or "allow_pickle=True" in call
            )
            if unsafe or (unpickles and "weights_only=True" not in call):
                found.append(f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}")
    assert not found
    assert looked > 200


def test_a_field_whose_number_protobuf_would_cut_is_refused() -> None:
    with pytest.raises(BundleError):
        external_files(b"\xba\x80\x80\x80\x10\x00")  # to protobuf the same as 0x3a, the graph
