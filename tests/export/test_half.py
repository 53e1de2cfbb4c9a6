"""Half precision hears quiet and loud recordings as single does, for spectrograms stay single."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from fuseline import config
from fuseline.export.graph import OUTPUTS, save, write_graph
from fuseline.export.half import SINGLE, find_halved, halve, write_fp16
from fuseline.models.ensemble import Ensemble
from fuseline.tasks.classification import Classification
from fuseline.training.pretrained import build_member
from tests.conftest import LABELS, combiner_of, liven

RATE = 8000


@pytest.fixture(scope="module", params=["geometric", "arithmetic"])
def listener(request: pytest.FixtureRequest, encoders: config.Encoders, expert: Callable[..., Any]) -> Ensemble:
    """Give an expert on sound with convolutions that are worth halving, whose filters are as large.

    Of the two pools, the arithmetic one takes logarithms behind members too.
    """
    assert isinstance(encoders.audio, config.AudioCnn)
    audio = encoders.audio.model_copy(update={"mels": 40, "widths": [8, 64]})
    changed = encoders.model_copy(update={"audio": audio})
    model = liven(build_member(expert("audio"), changed, Classification(LABELS), 0), 0)
    return Ensemble({"sound": model}, combiner_of([1.0], 1.0, request.param)).eval()


@pytest.fixture(scope="module")
def plain(listener: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "model.onnx"
    write_graph(listener, 20, path)
    return path


def recordings(loudness: float) -> dict[str, Any]:
    """Give three tones in a little noise."""
    random, time_L = np.random.default_rng(0), np.arange(3000) / RATE
    tones_BL = np.sin(2 * np.pi * np.array([[200.0], [900.0], [2300.0]]) * time_L)
    wave_BL = loudness * (0.9 * tones_BL + 0.1 * random.uniform(-1, 1, tones_BL.shape))
    return {"waveform": wave_BL.astype(np.float32), "waveform_lengths": np.array([3000, 2000, 2999]),
            "has_audio": np.ones(3, dtype=bool)}  # fmt: skip


@pytest.mark.parametrize("loudness", [3e-5, 1e-3, 1.0, 8.0], ids="{:g} of full scale".format)
def test_half_precision_hears(loudness: float, listener: Ensemble, plain: Path, tmp_path: Path) -> None:
    model = ir.load(plain)
    halve(model.graph, find_halved(model.graph))
    save(model, tmp_path / "model.onnx", {})
    feeds = recordings(loudness)
    reference = ReferenceEvaluator(str(tmp_path / "model.onnx"))  # onnxruntime computes wider on a processor
    (found,) = reference.run(["logits"], feeds)
    with torch.no_grad():
        expected = listener(**{name: torch.from_numpy(array) for name, array in feeds.items()})[1].numpy()
    assert np.abs(found - expected).max() < 5e-5 * np.abs(expected).max()


def test_the_network_is_halved_and_what_it_hears_with_is_not(plain: Path) -> None:
    nodes = list(ir.load(plain).graph)
    chosen = find_halved(ir.load(plain).graph)
    log = next(number for number, node in enumerate(nodes) if node.op_type == "Log")
    kinds = [node.op_type for node in nodes[:log]]
    assert "Conv" in kinds
    assert "MatMul" in kinds
    halved = {node.name for node in chosen}
    assert not halved & {node.name for node in nodes[: log + 1]}
    assert sum(node.op_type == "Conv" for node in chosen) == 2  # of the second block, which are large


def test_nothing_is_cast_there_and_back_and_nothing_twice(plain: Path) -> None:
    graph = ir.load(plain).graph
    before = sum(node.op_type == "Cast" for node in graph)
    halve(graph, find_halved(graph))
    casts = [node for node in graph if node.op_type == "Cast"]
    for cast in casts:
        maker = cast.inputs[0].producer()  # type: ignore[union-attr]
        assert maker is None or maker.op_type != "Cast" or maker.inputs[0].dtype != cast.outputs[0].dtype  # type: ignore[union-attr]
    assert set(Counter((cast.inputs[0], cast.outputs[0].dtype) for cast in casts).values()) == {1}
    assert 2 <= len(casts) - before <= 6  # into the network and out, and what masks its padding


def test_a_graph_says_of_what_it_answers_that_it_is_single(plain: Path, tmp_path: Path) -> None:
    write_fp16(plain, tmp_path / "model.onnx", {})
    outputs = {each.name: each.dtype for each in ir.load(tmp_path / "model.onnx").graph.outputs}
    assert outputs == dict.fromkeys(OUTPUTS, SINGLE)
