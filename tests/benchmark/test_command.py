"""`fuseline benchmark` and `python -m fuseline.benchmark`: one command, on rows that are given or made up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fuseline.benchmark.made import make_rows
from fuseline.cli import app
from fuseline.records import Benchmark
from fuseline.runtime.predictor import Predictor, Row

FEW = ["--calls", "4", "--warmup", "1", "--batch-size", "2", "--offline", "3", "--threads", "1", "--roofline", "1",
       "--rate", "100"]  # fmt: skip


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def test_a_bundle_is_timed_on_rows_that_are_made_up(bundle: Path, tmp_path: Path) -> None:
    done = run(bundle, *FEW, "--beside", f"twin={bundle}", "--output", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "Measured on: CPU" in done.output
    assert "* not measured: needs 299 calls" in done.output
    found = Benchmark.read(tmp_path / "out" / "benchmark.json")
    assert {name: one.calls for name, one in found.batches.items()} == {"batch_2": 4}
    assert list(found.others) == ["twin"]
    assert list(found.server) == ["rate_100"]
    assert (found.offline.rows, found.threads) == (3, 1)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["exported"]["batch_2"]["p50_ms"] == found.batches["batch_2"].p50_ms
    assert metrics["twin"]["rate_100"]["p95_ms"] == found.others["twin"].server["rate_100"].p95_ms
    assert {path.stem for path in (tmp_path / "out/plots/latency").iterdir()} == {"ensemble", "twin"}


def test_rows_that_are_given_are_read_as_predict_reads_them(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "the rose"}\n')
    assert run(bundle, *FEW, "--input", tmp_path / "rows.jsonl").exit_code == 0
    (tmp_path / "rows.csv").write_text("text\nthe rose\n")
    assert run(bundle, *FEW, "--input", tmp_path / "rows.csv").exit_code == 0
    (tmp_path / "rows.jsonl").write_text("\n")
    done = run(bundle, *FEW, "--input", tmp_path / "rows.jsonl")
    assert done.exit_code == 1
    assert "there is no row to ask it with" in done.output


@pytest.mark.parametrize("name", ["bundle", "exported", "ensemble", "twin"])
def test_no_two_sides_have_one_name(name: str, bundle: Path) -> None:
    done = run(bundle, *FEW, "--beside", f"twin={bundle}", "--beside", f"{name}={bundle}")
    assert done.exit_code == 1
    assert f"{name} is taken" in done.output


@pytest.mark.parametrize("given", ["twin", "=x", "twin=", "a.b=x", "torch eager=x", "../a=x"])
def test_what_stands_beside_it_has_a_name(given: str, bundle: Path) -> None:
    done = run(bundle, *FEW, "--beside", given)
    assert done.exit_code == 1
    assert "expected NAME=FOLDER" in done.output


def test_the_module_is_the_same_command_and_needs_no_torch(bundle: Path, tmp_path: Path) -> None:
    names = "{'torch', 'transformers', 'torchvision', 'prefect', 'dvc', 'great_expectations', 'pyarrow', 'pandas'}"
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nclass Refuse:\n    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {names}:\n            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", "fuseline.benchmark", str(bundle), *FEW]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Batch 2, call after call" in done.stdout
    wrong = subprocess.run([*command[:3], "nowhere"], check=False, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("error: nowhere: no bundle.json here")


def test_rows_are_made_of_the_vocabulary_at_the_sizes_asked_for(bundle: Path) -> None:
    rows = make_rows(bundle, 3, pixels=50, words=5, seconds=1.0, seed=0)
    predictor = Predictor(bundle, ["CPUExecutionProvider"], 1)
    items = [predictor.read(row) for row in rows]
    assert [item["image"].shape for item in items] == [(50, 50, 3)] * 3
    assert all(len(row.text.split()) == 5 and row.text.isascii() for row in rows)
    assert all("[" not in row.text and "#" not in row.text for row in rows)
    assert make_rows(bundle, 3, 50, 5, 1.0, seed=0) == rows != make_rows(bundle, 3, 50, 5, 1.0, seed=1)
    assert all(isinstance(row, Row) for row in rows)
