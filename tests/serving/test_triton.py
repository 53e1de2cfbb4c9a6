"""A model repository as Triton reads it, its configuration by Triton's own schema. No server runs here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from google.protobuf import text_format

from fuseline.errors import BundleError
from fuseline.records import Bundle, sha256_of
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.signature import sign
from fuseline.serving import triton
from fuseline.serving.triton import Instances, write_repository
from tests.runtime.test_signature import make_key

DTYPES = {"TYPE_INT64": np.int64, "TYPE_UINT8": np.uint8, "TYPE_BOOL": np.bool_, "TYPE_FP32": np.float32}


@pytest.fixture(scope="module")
def schema() -> Any:
    """Give model_config.proto, compiled, out of Triton's client: its package imports gRPC, this file does not."""
    file = importlib.metadata.distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(file))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def read(schema: Any) -> Any:
    """Give the reader of a configuration; a field that Triton does not know is an error."""
    return lambda home: text_format.Parse((home / "config.pbtxt").read_text(), schema.ModelConfig())


def test_the_repository_is_laid_out_as_triton_wants_it(bundle: Path, tmp_path: Path) -> None:
    home = write_repository(bundle, tmp_path / "models")
    found = sorted(path.relative_to(tmp_path / "models").as_posix() for path in home.rglob("*") if path.is_file())
    graph = ["tiny/1/model.onnx/model.onnx", "tiny/1/model.onnx/model.onnx.data"]
    beside = {path.name for path in bundle.iterdir()} - {"model.onnx", "model.onnx.data"} | {
        "config.pbtxt",
        "labels.txt",
    }
    assert found == sorted([*graph, *(f"tiny/{name}" for name in beside)])
    for name in ("model.onnx", "model.onnx.data"):
        assert sha256_of(home / "1" / "model.onnx" / name) == sha256_of(bundle / name)
    assert (home / "labels.txt").read_text().split() == ["red", "green", "blue"]


def test_the_configuration_says_what_the_graph_takes_and_gives(
    bundle: Path, tmp_path: Path, read: Any, schema: Any
) -> None:
    config = read(write_repository(bundle, tmp_path))
    found = {
        each.name: (schema.DataType.Name(each.data_type), list(each.dims)) for each in [*config.input, *config.output]
    }
    assert found == {
        "input_ids": ("TYPE_INT64", [-1]), "attention_mask": ("TYPE_INT64", [-1]), "has_text": ("TYPE_BOOL", [1]),
        "pixels": ("TYPE_UINT8", [-1, -1, 3]), "has_image": ("TYPE_BOOL", [1]),
        "probabilities": ("TYPE_FP32", [3]), "logits": ("TYPE_FP32", [3]), "members": ("TYPE_FP32", [4, 3]),
    }  # fmt: skip
    flags = [each for each in config.input if each.name.startswith("has_")]
    assert [(each.HasField("reshape"), list(each.reshape.shape)) for each in flags] == [(True, [])] * 2
    assert [each.label_filename for each in config.output] == ["labels.txt", "", ""]
    assert (config.name, config.backend, config.max_batch_size) == ("tiny", "onnxruntime", 16)
    assert config.HasField("dynamic_batching")


def test_requests_shaped_as_the_configuration_says_are_answered_as_by_the_runtime(
    bundle: Path, tmp_path: Path, read: Any, schema: Any, rows: list[Row]
) -> None:
    """What the server would do: check dims and types, put rows together, reshape, run."""
    home = write_repository(bundle, tmp_path)
    config, predictor = read(home), Predictor(bundle, ["CPUExecutionProvider"])
    session = ort.InferenceSession(str(home / "1" / "model.onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    requests = [predictor.feeds([predictor.read(rows[number])]) for number in (0, 3)]
    feeds = {}
    for each in config.input:
        shape = [1, *each.dims]
        sent = [request[each.name].reshape([1, *each.dims]) if each.HasField("reshape") else request[each.name]
                for request in requests]  # fmt: skip
        for array in sent:
            assert array.dtype == DTYPES[schema.DataType.Name(each.data_type)]
            assert all(want in (-1, got) for want, got in zip(shape, array.shape, strict=True))
        width = max(array.shape[1] for array in sent)  # the client pads texts that are to go in together
        padded = [np.pad(array, [(0, 0), (0, width - array.shape[1]), *[(0, 0)] * (array.ndim - 2)]) for array in sent]
        together = np.concatenate(padded)
        feeds[each.name] = together.reshape(len(sent), *each.reshape.shape) if each.HasField("reshape") else together
    [found] = session.run(["probabilities"], feeds)
    expected = [answer.probabilities for answer in predictor.answer([rows[0], rows[3]])]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("gpu", "kind"), [(False, "KIND_CPU"), (True, "KIND_GPU")])
def test_instances_run_where_they_are_told(gpu: bool, kind: str, bundle: Path, tmp_path: Path, read: Any) -> None:
    [group] = read(write_repository(bundle, tmp_path, "m", 3, 8, Instances(2, gpu))).instance_group
    assert (group.count, group.Kind.Name(group.kind)) == (2, kind)
    assert (tmp_path / "m" / "3" / "model.onnx").is_dir()


def test_a_version_joins_those_that_are_there_and_replaces_none(bundle: Path, tmp_path: Path) -> None:
    write_repository(bundle, tmp_path)
    with pytest.raises(BundleError, match="there already; versions stay"):
        write_repository(bundle, tmp_path)
    home = write_repository(bundle, tmp_path, version=2)
    assert sorted(path.name for path in home.iterdir() if path.is_dir()) == ["1", "2"]


def test_an_altered_bundle_is_not_written(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match="altered"):
        write_repository(tmp_path / "bundle", tmp_path / "models")
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data", "tokenizer.json", "bundle.json"])
def test_what_is_altered_after_it_was_verified_is_not_written(
    file: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(bundle, tmp_path / "bundle")

    def read_then_alter(folder: Path) -> Bundle:
        found = read_bundle(folder)
        if folder == source:
            (source / file).write_bytes((source / file).read_bytes()[:-1] + b"!")
        return found

    monkeypatch.setattr(triton, "read_bundle", read_then_alter)
    with pytest.raises(BundleError):
        write_repository(source, tmp_path / "models")
    assert [path for path in (tmp_path / "models").rglob("*") if path.is_file()] == []


def test_a_signature_is_copied_and_verified(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shutil.copytree(bundle, tmp_path / "bundle")
    private, public = make_key(tmp_path)
    monkeypatch.setenv("FUSELINE_PUBLIC_KEY", str(public))
    sign(source, private)
    assert (write_repository(source, tmp_path / "models") / "bundle.sig").is_file()


def test_the_signature_of_another_version_does_not_stay_beside_an_unsigned_one(bundle: Path, tmp_path: Path) -> None:
    signed = shutil.copytree(bundle, tmp_path / "bundle")
    sign(signed, make_key(tmp_path)[0])
    for version, (source, there) in enumerate([(signed, True), (bundle, False), (signed, True)], start=1):
        home = write_repository(source, tmp_path / "models", "m", version)
        assert (home / "bundle.sig").is_file() is there


def test_a_name_that_leads_elsewhere_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no name for a model"):
        write_repository(bundle, tmp_path, "../x")
