"""The measurement of the server counts what it watched."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import serving
from fuseline.runtime import Predictor, Row


def test_every_system_answers_at_every_number_of_clients(
    bundle: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "ROUNDS", 1)
    monkeypatch.setattr(serving, "CLIENTS", (1, 4))
    monkeypatch.setattr(serving, "SECONDS", 0.5)
    monkeypatch.setattr(serving, "WARMUP_S", 0.2)
    found = serving.compare(bundle, Predictor(bundle, ["CPUExecutionProvider"], 2), rows)
    assert set(found) == {
        "one by one, 1 clients", "one by one, 4 clients", "batched, 1 clients", "batched, 4 clients",
        "plain, batch 1", "plain, batch 4",
    }  # fmt: skip
    assert all(numbers["rows"] > 0 and numbers["cpu_ms_per_row"] > 0 for numbers in found.values())


def test_rows_of_all_runs_are_pooled() -> None:
    found = serving.summarize([serving.Run(2.0, 1.0, [0.1, 0.3]), serving.Run(2.0, 3.0, [0.2, 0.2])])
    assert found == pytest.approx(
        {"rows": 4, "per_second": 1.0, "p50_ms": 200.0, "p99_ms": 297.0, "cpu_ms_per_row": 1000.0}
    )
