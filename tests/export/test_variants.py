"""The ways in which a graph is written, on the tiny ensemble of the other tests; and which of them is published."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from fuseline.export.fuse import ATTENTIONS
from fuseline.export.graph import OUTPUTS, count_nodes, share, trace, write_graph
from fuseline.export.half import find_halved
from fuseline.export.quantize import find_convolutions, quantise_embeddings
from fuseline.export.variants import calibrate, choose, write_variant
from fuseline.models.ensemble import Ensemble
from fuseline.models.member import FusionModel
from fuseline.records import Exported, Variant
from fuseline.runtime import rows
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.rows import read_parquet
from tests.conftest import combiner_of
from tests.export.test_bundle import CPU, draw

OTHERS: list[Variant] = ["fused", "fp16", "int8"]


@pytest.fixture(scope="module")
def plain(ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    write_graph(ensemble, 20, path, {"name": "tiny"})
    return path


def feeds() -> Iterator[dict[str, Any]]:
    yield from (draw(3, 6, 40 + number, 36) for number in range(4))


@pytest.fixture(scope="module", params=OTHERS)
def written(request: pytest.FixtureRequest, plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("written") / "model.onnx"
    assert write_variant(request.param, plain, path, {"variant": request.param}, feeds)
    return request.param, path


def test_a_variant_tells_what_it_is_and_has_the_same_inputs_and_outputs(plain: Path, written: tuple[str, Path]) -> None:
    variant, path = written
    one, other = (ort.InferenceSession(str(each), providers=CPU) for each in (plain, path))
    assert other.get_modelmeta().custom_metadata_map == {"variant": variant}
    for ask in ("get_inputs", "get_outputs"):
        assert [(each.name, each.type) for each in getattr(one, ask)()] == [
            (each.name, each.type) for each in getattr(other, ask)()
        ]


def test_a_variant_takes_any_batch_length_and_picture(plain: Path, written: tuple[str, Path]) -> None:
    variant, path = written
    one, other = (ort.InferenceSession(str(each), providers=CPU) for each in (plain, path))
    for sizes in ((1, 1, 1, 1), (5, 12, 200, 31), (17, 3, 33, 32)):
        expected, found = (session.run(list(OUTPUTS), draw(*sizes)) for session in (one, other))
        assert np.abs(found[0] - expected[0]).max() < {"fused": 1e-5, "fp16": 5e-3, "int8": 0.3}[variant]


def test_writing_a_variant_again_gives_the_same_bytes(plain: Path, written: tuple[str, Path], tmp_path: Path) -> None:
    variant, path = written
    write_variant(variant, plain, tmp_path / "model.onnx", {"variant": variant}, feeds)  # type: ignore[arg-type]
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / name).read_bytes() == path.with_name(name).read_bytes()


WRITE_ALL = """
import sys
from pathlib import Path
from fuseline.export.graph import write_graph
from fuseline.export.variants import write_variant
from fuseline.models.ensemble import Ensemble
from fuseline.training.checkpoints import load_member
from tests.conftest import combiner_of
from tests.export.test_variants import OTHERS, feeds
members, folder = map(Path, sys.argv[1:])
loaded = {path.name: load_member(path) for path in sorted(members.iterdir())}
ensemble = Ensemble(loaded, combiner_of([0.25] * 4)).eval()
for name in ["fp32", *OTHERS]:
    (folder / name).mkdir(parents=True)
write_graph(ensemble, 20, folder / "fp32/model.onnx", {"name": "tiny"})
for name in OTHERS:
    write_variant(name, folder / "fp32/model.onnx", folder / name / "model.onnx", {"variant": name}, feeds)
"""


def test_another_process_whose_sets_come_in_another_order_gives_the_same_bytes(
    ensemble: Ensemble, tmp_path: Path
) -> None:
    for name, member in zip(ensemble.names, ensemble.members, strict=True):
        member.save_pretrained(tmp_path / "members" / name)  # type: ignore[operator]
    path = os.pathsep.join(sys.path)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL, tmp_path / "members", tmp_path / seed],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path},
        )
        for seed in ("1", "2")
    ]
    assert [each.wait(300) for each in running] == [0, 0]
    files = {path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*.*")}
    assert len(files) == 8
    assert all((tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes() for file in files)


@pytest.mark.parametrize(
    ("asked", "taken"), [(3, [0, 8, 16]), (24, list(range(24))), (1000, list(range(24)))], ids=["few", "all", "more"]
)
def test_calibration_takes_rows_from_the_whole_split_and_reads_it_once(
    asked: int, taken: list[int], bundle: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Row] = []

    def watched(*arguments: Any) -> Iterator[Row]:
        for row in read_parquet(*arguments):
            read.append(row)
            yield row

    monkeypatch.setattr(rows, "read_parquet", watched)
    given = list(calibrate(bundle, prepared / "train", asked))
    assert len(read) == 24
    assert sum(len(feeds["has_text"]) for feeds in given) == len(taken)
    expected = list(Predictor(bundle, CPU).feeds_of(read[number] for number in taken))
    for one, other in zip(given, expected, strict=True):
        np.testing.assert_array_equal(one["input_ids"], other["input_ids"])


def test_onnxruntimes_operators_stand_in_the_fused_graph_alone(plain: Path, tmp_path: Path) -> None:
    done = write_variant("fused", plain, tmp_path / "model.onnx", {}, feeds)
    domains = {node.domain for node in onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.node}
    assert domains == {"", "com.microsoft"}
    assert {node.domain for node in onnx.load(plain, load_external_data=False).graph.node} == {""}
    assert sum(done.get(name, 0) for name in ATTENTIONS) == 3  # an expert, two fusion members
    assert count_nodes(ir.load(tmp_path / "model.onnx")) < count_nodes(ir.load(plain))


def test_members_of_equal_frozen_layers_cost_one(ensemble: Ensemble) -> None:
    text = ensemble.members[0]
    assert isinstance(text, FusionModel)
    twin = FusionModel(text.config).eval()
    twin.load_state_dict(text.state_dict())
    with torch.no_grad():
        twin.head.weight.mul_(2)
    alone = trace(Ensemble({"one": text}, combiner_of([1.0])).eval(), 20)
    both = trace(Ensemble({"one": text, "two": twin}, combiner_of([0.5, 0.5])).eval(), 20)
    for model in (alone, both):
        share(model)
    assert weigh(both) < 1.05 * weigh(alone)
    products = [sum(node.op_type == "MatMul" for node in model.graph) for model in (alone, both)]
    assert products[0] == products[1]


def weigh(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values())  # type: ignore[union-attr]


def test_equal_lower_layers_of_members_that_differ_above_are_computed_once(ensemble: Ensemble) -> None:
    text = ensemble.members[0]
    assert isinstance(text, FusionModel)
    twin = FusionModel(text.config).eval()
    twin.load_state_dict(text.state_dict())
    with torch.no_grad():
        twin.encoders["text"].backbone.encoder.layer[-1].output.dense.weight.mul_(2)  # type: ignore[union-attr]
    both = trace(Ensemble({"one": text, "two": twin}, combiner_of([0.5, 0.5])).eval(), 20)
    share(both)
    assert sum(node.op_type == "Softmax" for node in both.graph) == 2  # in the one attention, and behind all members
    assert sum(node.op_type == "Gelu" for node in both.graph) == 1


def test_pictures_are_resized_and_members_combined_in_single_precision(plain: Path) -> None:
    graph = ir.load(plain).graph
    chosen = find_halved(graph)
    assert {"Conv", "Relu"} <= {node.op_type for node in chosen}
    assert len([node for node in graph if node.op_type == "Range" and node not in chosen]) > 0
    assert not any(node.op_type in ("LogSoftmax", "Range", "ReduceMax") for node in chosen)


def test_convolutions_and_what_carries_on_from_them_are_found(plain: Path) -> None:
    kinds = set(find_convolutions(onnx.load(plain, load_external_data=False).graph).values())
    assert kinds == {"Conv", "Relu", "Add", "MaxPool"}


def test_embeddings_are_off_by_no_more_than_their_words_step() -> None:
    table_VD = np.array([[1.0, -0.5], [1e-3, 5e-4], [0.0, 0.0]], np.float32)
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["n"]))
    held = ir.Value(name="table", const_value=ir.tensor(table_VD))
    held.dtype, held.shape = ir.DataType.FLOAT, ir.Shape([3, 2])
    node = ir.node("Gather", [held, ids])
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = "found", ir.DataType.FLOAT, ir.Shape(["n", 2])
    graph = ir.Graph([ids], node.outputs, nodes=[node], initializers=[held], opset_imports={"": 20})
    assert quantise_embeddings(graph) == 1
    session = ort.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString(), providers=CPU)
    (found,) = session.run(None, {"ids": np.arange(3)})
    assert (np.abs(found - table_VD) <= np.abs(table_VD).max(1, keepdims=True) / 253).all()


def test_no_path_of_this_machine_and_no_note_of_the_exporter_is_left_in_any_variant(written: tuple[str, Path]) -> None:
    assert b"site-packages" not in written[1].read_bytes()
    assert b"pkg.torch" not in written[1].read_bytes()
    assert str(Path.cwd()).encode() not in written[1].read_bytes()


def exported(**drops: float) -> Mapping[Variant, Exported]:
    common: dict[str, Any] = {
        "rows": 9, "batch_sizes": [1], "max_logit_difference": 0.0, "relative_logit_difference": 0.0,
        "argmax_agreement": 1.0, "evaluation_agreement": 1.0, "nodes": 1, "model_bytes": 1, "operators": {},
    }  # fmt: skip
    return {name: Exported(**common, value=0.8 - drop, drop=drop) for name, drop in drops.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("preferred", "drops", "chosen"),
    [
        (["int8", "fp32"], {"fp32": 0.0, "int8": 0.005}, "int8"),
        (["int8", "fp32"], {"fp32": 0.0, "int8": 0.006}, "fp32"),
        (["int8", "fused", "fp32"], {"fp32": 0.0, "fused": 0.0, "int8": 0.006}, "fused"),
        (["fp32", "int8"], {"fp32": 0.0, "int8": -0.01}, "fp32"),
        (["int8", "fp32"], {"fp32": 0.0, "int8": 0.72 - 0.715}, "int8"),
        (["int8", "fp32"], {"fp32": 0.007, "int8": 0.007}, "fp32"),
        (["fp16", "fp32"], {"fp32": 0.0, "fp16": 0.0}, "fp32"),
        (["int8", "fused", "fp32"], {"fp32": 0.0, "fused": 0.0}, "fused"),
    ],
    ids=[
        "at the bound",
        "beyond it",
        "the next one",
        "the preferred one",
        "at the bound in floats",
        "none is within",
        "what is for a GPU",
        "one was dropped",
    ],
)
def test_the_first_variant_that_costs_little_enough_is_published(
    preferred: list[Variant], drops: dict[str, float], chosen: Variant
) -> None:
    assert choose(preferred, exported(**drops), 0.005) == chosen
