"""The bundle says what the ensemble says, at sizes other than the traced ones, and needs no Fuseline to say it."""

from __future__ import annotations

import json
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

import fuseline
from fuseline.errors import BundleError, ExportError
from fuseline.export.graph import trace
from fuseline.export.usage import snippet
from fuseline.inputs import inputs_of
from fuseline.models.ensemble import Ensemble
from fuseline.records import sha256_of
from fuseline.runtime import rows
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.rows import read_parquet
from tests.conftest import combiner_of, compare, run_readme

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def session(bundle: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(bundle / "model.onnx"), providers=CPU)


def draw(batch: int, tokens: int, height: int, width: int) -> dict[str, np.ndarray[Any, Any]]:
    """Draw inputs with padding at the right and every pattern of presence."""
    random = np.random.default_rng(batch + tokens + height + width)
    lengths = random.integers(1, tokens + 1, size=batch)
    patterns = [(True, True), (True, False), (False, True)]
    has_text, has_image = zip(*(patterns[number % 3] for number in range(batch)), strict=True)
    return {
        "input_ids": random.integers(0, 15, (batch, tokens)),
        "attention_mask": (np.arange(tokens) < lengths[:, None]).astype(np.int64),
        "has_text": np.array(has_text),
        "pixels": random.integers(0, 256, (batch, height, width, 3), dtype=np.uint8),
        "has_image": np.array(has_image),
    }


@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1, 1), (1, 12, 32, 32), (2, 7, 48, 40), (3, 2, 5, 300), (5, 24, 200, 31), (17, 9, 33, 32)],
    ids="{0[0]} rows of {0[1]} tokens and {0[2]} x {0[3]} px".format,
)
def test_the_graph_agrees_with_torch_for(
    sizes: tuple[int, int, int, int], session: ort.InferenceSession, ensemble: Ensemble
) -> None:
    feeds = draw(*sizes)
    with torch.no_grad():
        expected = ensemble(**{name: torch.from_numpy(array) for name, array in feeds.items()})
    for found, tensor in zip(session.run(["probabilities", "logits", "members"], feeds), expected, strict=True):
        np.testing.assert_allclose(found, tensor.numpy(), atol=1e-4)


def probabilities_of(bundle: Path, file: Path) -> np.ndarray[Any, Any]:
    predictor = Predictor(bundle, CPU)
    rows = read_parquet(file, predictor.bundle.modalities)
    return np.stack([answer.probabilities for answer in predictor.answer(rows)])


def test_parity_counts_all_rows_at_all_batch_sizes(bundle: Path, ensemble: Ensemble, prepared: Path) -> None:
    evaluated = probabilities_of(bundle, prepared / "test")
    parity = compare(bundle, ensemble, prepared / "test", evaluated, [1, 4])
    assert (parity.rows, parity.batch_sizes, parity.argmax_agreement) == (9, [1, 4], 1.0)
    assert parity.max_logit_difference < 1e-4
    assert parity.evaluation_agreement == 1.0


def test_parity_sees_an_evaluation_of_other_answers(bundle: Path, ensemble: Ensemble, prepared: Path) -> None:
    evaluated = probabilities_of(bundle, prepared / "test")
    evaluated[:3] = 1 - evaluated[:3]  # three of nine rows get another label
    parity = compare(bundle, ensemble, prepared / "test", evaluated, [4])
    assert parity.evaluation_agreement == pytest.approx(6 / 9)


def test_parity_sees_an_ensemble_that_is_not_the_exported_one(bundle: Path, ensemble: Ensemble, prepared: Path) -> None:
    other = Ensemble(
        dict(zip(ensemble.names, ensemble.members, strict=True)), combiner_of([0.0, 0.0, 0.0, 1.0], 0.1)
    ).eval()
    evaluated = probabilities_of(bundle, prepared / "test")
    assert compare(bundle, other, prepared / "test", evaluated, [4]).max_logit_difference > 0.1


def test_parity_holds_no_rows_in_memory(
    bundle: Path, ensemble: Ensemble, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, seen = weakref.WeakSet[Row](), []

    def watched(*arguments: Any) -> Iterator[Row]:
        for row in read_parquet(*arguments):
            there.add(row)
            seen.append(len(there))
            yield row

    monkeypatch.setattr(rows, "read_parquet", watched)
    compare(bundle, ensemble, prepared / "test", np.full((9, 3), 1 / 3), [1, 4])
    assert len(seen) == 3 * 9  # by torch, and by the graph at two batch sizes
    assert max(seen) <= 2


def broken(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a computation of logits: only the first row of a batch stays finite."""

    def run(*arguments: Any, **options: Any) -> Any:
        probabilities, logits, members = compute(*arguments, **options)
        logits[1:] = float("nan")
        return probabilities, logits, members

    return run


@pytest.mark.parametrize("side", ["graph", "torch", "evaluation"])
def test_parity_refuses_what_is_not_finite_on_the_side_of_the(
    side: str, bundle: Path, ensemble: Ensemble, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated = probabilities_of(bundle, prepared / "test")
    if side == "evaluation":
        evaluated[2] = np.nan
    elif side == "graph":
        monkeypatch.setattr(Predictor, "_run", broken(Predictor._run))
    else:
        monkeypatch.setattr(ensemble, "forward", broken(ensemble.forward))
    what = {"graph": "graph at batch 4: logits", "torch": "torch at batch 7: logits", "evaluation": "the evaluation"}
    words = rf"{what[side]}.* not finite for \d of 9 test rows, first for row \d: \[nan"
    with pytest.raises(ExportError, match=words):
        compare(bundle, ensemble, prepared / "test", evaluated, [1, 4])


def test_the_description_lists_every_file_with_its_digest_and_size(bundle: Path) -> None:
    description = read_bundle(bundle)
    assert {path.name for path in bundle.iterdir()} == {"bundle.json", *description.files}
    for name, file in description.files.items():
        assert (file.sha256, file.bytes) == (sha256_of(bundle / name), (bundle / name).stat().st_size)


def test_the_description_tells_what_is_inside(bundle: Path, labels: list[str]) -> None:
    description = read_bundle(bundle)
    assert '"format": 1,' in (bundle / "bundle.json").read_text()
    assert description.labels == labels
    assert description.members == ["text", "image", "concat", "gated"]
    assert list(description.inputs) == sorted(["input_ids", "attention_mask", "has_text", "pixels", "has_image"])
    assert description.versions["opset"] == "20"
    assert description.versions["fuseline"] == fuseline.__version__


def test_the_graph_holds_no_path_of_this_machine(bundle: Path) -> None:
    data = (bundle / "model.onnx").read_bytes()
    assert b"site-packages" not in data
    assert b"pkg.torch" not in data
    assert str(Path.cwd()).encode() not in data


def test_the_graphs_file_is_a_tenth_of_what_the_exporter_writes_with_its_notes_of_this_machine(
    bundle: Path, ensemble: Ensemble, tmp_path: Path
) -> None:
    ir.save(trace(ensemble, 20), tmp_path / "raw.onnx", external_data="raw.onnx.data")
    assert b"site-packages" in (tmp_path / "raw.onnx").read_bytes()
    assert (bundle / "model.onnx").stat().st_size <= 0.10 * (tmp_path / "raw.onnx").stat().st_size


def test_the_graph_is_of_the_asked_for_opset_and_passes_onnxs_checker(bundle: Path) -> None:
    onnx.checker.check_model(str(bundle / "model.onnx"), full_check=True)
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    assert {one.domain: one.version for one in model.opset_import}[""] == 20


def answer_by_readme(folder: Path, tmp_path: Path, **constants: str) -> str:
    """Run the README's snippet; return the label."""
    return run_readme(folder, tmp_path, **constants).split()[0]


@pytest.mark.parametrize("kind", ["text and picture", "text only", "picture only"])
def test_the_readmes_snippet_gives_the_same_label_without_torch_or_fuseline(
    kind: str, bundle: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    text = None if kind == "picture only" else "the frog"
    image = None if kind == "text only" else picture((40, 60, 220, 90), 30, 50, mode="RGBA")
    if image is not None:
        (tmp_path / "a.png").write_bytes(image)
    path = None if image is None else str(tmp_path / "a.png")
    answer = next(Predictor(bundle, CPU, 1).answer([Row(text, image)]))
    expected = read_bundle(bundle).labels[answer.probabilities.argmax()]
    assert answer_by_readme(bundle, tmp_path, TEXT=repr(text), IMAGE=repr(path)) == expected


@pytest.fixture(scope="module")
def alone(ensemble: Ensemble, export: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give bundles of one expert each, by modality."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: export(folder / name, only(ensemble, name)) for name in ("text", "image")}


def only(ensemble: Ensemble, name: str) -> Ensemble:
    return Ensemble({name: ensemble.members[ensemble.names.index(name)]}, combiner_of([1.0])).eval()  # type: ignore[dict-item]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_an_ensemble_on_one_modality_takes_only_its_inputs(
    modality: str, alone: dict[str, Path], picture: Callable[..., bytes]
) -> None:
    predictor = Predictor(alone[modality], CPU, 1)
    assert {one.name for one in predictor.session.get_inputs()} == set(inputs_of([modality]))
    assert (alone[modality] / "tokenizer.json").exists() == (modality == "text")
    given = Row("the rose") if modality == "text" else Row(None, picture())
    first, second = (answer.logits for answer in predictor.answer([Row("the rose", picture()), given]))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_an_ensemble_on_one_modality_refuses_rows_without_it(alone: dict[str, Path]) -> None:
    with pytest.raises(BundleError, match="a row has none of image"):
        list(Predictor(alone["image"], CPU, 1).answer([Row("the rose")]))


def test_the_readmes_snippet_answers_a_missing_text_whose_tokenizer_adds_no_special_tokens(
    bundle: Path, tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "a.png").write_bytes(picture())
    answer = next(Predictor(bundle, CPU, 1).answer([Row(None, picture())]))
    label = answer_by_readme(folder, tmp_path, TEXT="None", IMAGE=repr(str(tmp_path / "a.png")))
    assert label == read_bundle(bundle).labels[answer.probabilities.argmax()]


def test_the_readmes_snippet_runs_for_text_alone(alone: dict[str, Path], tmp_path: Path) -> None:
    assert answer_by_readme(alone["text"], tmp_path, TEXT="'rose'") in read_bundle(alone["text"]).labels


def test_the_readmes_snippet_runs_for_pictures_alone(
    alone: dict[str, Path], tmp_path: Path, picture: Callable[..., bytes]
) -> None:
    (tmp_path / "a.png").write_bytes(picture())
    label = answer_by_readme(alone["image"], tmp_path, IMAGE=repr(str(tmp_path / "a.png")))
    assert label in read_bundle(alone["image"]).labels


def test_the_snippet_names_only_what_the_bundle_takes() -> None:
    assert "IMAGE" not in snippet(["text"])
    assert "Tokenizer" not in snippet(["image"])
    compile(snippet(["text", "image"]), "snippet", "exec")


def test_exporting_again_gives_the_same_graph_to_the_last_bit(
    alone: dict[str, Path], ensemble: Ensemble, export: Callable[..., Path], tmp_path: Path
) -> None:
    again = export(tmp_path / "again", only(ensemble, "text"))
    for name in ("model.onnx", "model.onnx.data"):
        assert (again / name).read_bytes() == (alone["text"] / name).read_bytes()
