"""The explain stage: labels that the ensemble is sure are others are listed, and no more of them than are asked for."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline import config
from fuseline.records import Explanation
from fuseline.stages import explain
from tests.conftest import LABELS
from tests.stages.conftest import whole_line

pytestmark = pytest.mark.slow
PREDICTIONS = Path("build/evaluate/predictions.parquet")


@pytest.fixture(scope="module")
def line(document: dict[str, Any], examples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder in which the line has run, and whose ensemble is sure that two test rows are of the next class."""
    changed = copy.deepcopy(document) | {"pretrain": None, "distill": None}
    with whole_line(tmp_path_factory.mktemp("explained"), changed, examples) as folder:
        path = folder / PREDICTIONS
        table = pq.read_table(path)
        labels = np.array(table["label"].to_pylist())
        said = labels.copy()
        said[:2] = (labels[:2] + 1) % 3
        probs = pa.array((0.05 + 0.85 * np.eye(3)[said]).astype(np.float32).tolist(), pa.list_(pa.float32()))
        pq.write_table(table.set_column(table.schema.get_field_index("probabilities"), "probabilities", probs), path)
        yield folder


@pytest.mark.parametrize("most", [100, 1])
def test_doubtful_labels_are_listed_as_far_as_asked_for(most, line, document, monkeypatch):
    monkeypatch.chdir(line)
    changed = copy.deepcopy(document)
    changed["explain"]["review"] = most
    explain.main(config.Params.model_validate(changed))
    found = Explanation.read(Path("build/explain/explanation.json"))
    table = pq.read_table(PREDICTIONS)
    ids, labels = table["id"].to_pylist(), table["label"].to_pylist()
    planted = {ids[row]: LABELS[(labels[row] + 1) % 3] for row in (0, 1)}
    assert len(found.doubts) <= most
    assert [doubt.margin for doubt in found.doubts] == sorted(doubt.margin for doubt in found.doubts)
    doubted = {doubt.id: doubt.answer["label"] for doubt in found.doubts if doubt.split == "test"}
    assert doubted.items() <= planted.items()
    assert len(doubted) == (2 if most > 1 else 1)
    tasks = [task for path in Path("build/explain/review").rglob("tasks.json") for task in json.loads(path.read_text())]
    assert {task["data"]["id"] for task in tasks} == {doubt.id for doubt in found.doubts}
    assert {error.id for error in found.errors} == set(planted)


def test_shares_add_up_to_what_is_reached(line, document, monkeypatch):
    monkeypatch.chdir(line)
    explain.main(config.Params.model_validate(document))
    found = Explanation.read(Path("build/explain/explanation.json"))
    probs = np.array(pq.read_table(PREDICTIONS)["probabilities"].to_pylist())
    labels = pq.read_table(PREDICTIONS)["label"].to_numpy()
    shares = {name: found.chance[name] + sum(each[name].value for each in found.modalities.values())
              for name in ("accuracy", "nll")}  # fmt: skip
    assert shares["accuracy"] == pytest.approx((probs.argmax(1) == labels).mean(), abs=1e-9)
    assert shares["nll"] == pytest.approx(-np.log(probs[np.arange(len(labels)), labels]).mean(), abs=1e-6)
    for error in found.errors:
        assert error.probability == pytest.approx(error.chance + sum(error.modalities.values()), abs=1e-6)
        assert error.predicted != error.label
