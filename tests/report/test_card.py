"""The model card says what a bundle reaches where Hugging Face looks for it, and nothing in it is taken for markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from fuseline.evaluation.metrics import values_of
from fuseline.records import Exported, Slice, System, Variant
from fuseline.report import markdown
from fuseline.report.card import Card, Graph, render_card, tell_graph
from fuseline.report.page import Story
from fuseline.report.tables import Table
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.ner import Ner


@pytest.fixture
def card(story: Callable[..., Story]) -> Card:
    told = story()
    part = Slice(rows=40, ensemble=told.evaluation.ensemble, student=told.evaluation.ensemble)
    cut = {"modalities": {"text": part, "text+image": part}}
    return Card(
        name="fusion", task=Classification(told.evaluation.labels), system="ensemble", modalities=["text", "image"],
        graph=Graph("fp32", told.parity.variants["fp32"], values_of(told.evaluation.ensemble)),
        evaluation=told.evaluation.model_copy(update={"slices": cut}),
        preparation=told.preparation, manifest=told.manifest, data="ab" * 32,
        encoders={"text": "bert-base-uncased", "image": "resnet50 (IMAGENET1K_V2)"}, base_models=["bert-base-uncased"],
    )  # fmt: skip


def test_hugging_face_reads_the_results_from_the_head_of_the_card(card: Card) -> None:
    data = ModelCard(render_card(card)).data
    assert (data.library_name, data.base_model, data.model_name) == ("onnx", ["bert-base-uncased"], "fusion")
    assert data.tags == ["text", "image", "multimodal", "fuseline"]
    found = {result.metric_name: result for result in data.eval_results}
    assert found["Accuracy"].metric_value == pytest.approx(card.evaluation.ensemble["accuracy"].value, abs=1e-6)
    assert found["Accuracy"].dataset_revision == card.data
    assert found["Macro F1"].metric_type == "f1"
    assert found["Accuracy"].dataset_split == "test"


@pytest.mark.parametrize(
    ("task", "modalities", "expected"),
    [
        (Classification(["a", "b"]), ["text"], "text-classification"),
        (Classification(["a", "b"]), ["audio"], "audio-classification"),
        (Classification(["a", "b"]), ["text", "image"], None),
        (Ner(["a"], "bio"), ["text", "image"], "token-classification"),
    ],
    ids=["texts", "sounds", "texts and pictures", "entities"],
)
def test_the_hub_finds_it_by_its_task(task: Task, modalities: list[str], expected: str | None, card: Card) -> None:
    told = render_card(replace(card, task=task, modalities=modalities))
    assert ModelCard(told).data.pipeline_tag == expected


def test_it_tells_members_classes_patterns_slices_and_what_it_was_made_from(card: Card) -> None:
    told = render_card(card)
    for words in ("ensemble (this bundle)", "Classes by F1", "by available modalities", "on disturbed test rows",
                  "By modalities", "Rows per split and label", card.data, "resnet50 (IMAGENET1K\\_V2)"):  # fmt: skip
        assert words in told
    for member in card.evaluation.members:
        assert f"| {member} |" in told


@pytest.mark.parametrize("system", ["ensemble", "student"])
def test_its_first_row_is_what_the_bundle_holds(system: System, card: Card) -> None:
    evaluation = card.evaluation.model_copy(update={"student": card.evaluation.members["text"]})
    graph = replace(card.graph, scores=values_of(evaluation.of(system)))
    told = render_card(replace(card, evaluation=evaluation, system=system, graph=graph))
    (row,) = (line for line in told.splitlines() if "(this bundle)" in line)
    value = evaluation.of(system)["accuracy"].value
    assert row.startswith(f"| {system} (this bundle) | {value:.3f} |")
    result = next(r for r in ModelCard(told).data.eval_results if r.metric_type == "accuracy")
    assert result.metric_value == pytest.approx(value, abs=1e-6)


def test_a_graph_of_fewer_bits_is_told_with_what_it_reaches_itself(card: Card, story: Callable[..., Story]) -> None:
    scores = values_of(card.evaluation.ensemble) | {"accuracy": 0.8472, "macro_f1": 0.8021}
    told = render_card(replace(card, graph=Graph("int8", story().parity.variants["int8"], scores)))
    assert "The graph is in eight bits, with ONNX's own operators (`int8`, 134.0 MB)." in told
    assert "Measured with it, accuracy is 0.847, 0.003 less than in torch." in told
    first, second = (line for line in told.splitlines() if line.startswith("| ensemble "))
    assert first.startswith("| ensemble as int8 (this bundle) | 0.847 | — | 0.802 |")
    assert second.startswith(f"| ensemble in torch | {card.evaluation.ensemble['accuracy'].value:.3f} | \\[")
    found = {result.metric_type: result.metric_value for result in ModelCard(told).data.eval_results}
    assert (found["accuracy"], found["f1"]) == (0.8472, 0.8021)


@pytest.mark.parametrize(
    ("drop", "words"),
    [(0.0004, "as in torch."), (-0.0004, "as in torch."), (0.012, "0.012 less than in torch."),
     (-0.012, "0.012 more than in torch.")],
)  # fmt: skip
@pytest.mark.parametrize("variant", ["fp32", "fused", "fp16", "int8"])
def test_what_a_graph_costs_is_told_in_words(variant: Variant, drop: float, words: str, card: Card) -> None:
    exported: Exported = card.graph.exported.model_copy(update={"drop": drop})
    told = tell_graph(Graph(variant, exported, {}), "accuracy")
    assert words in told
    assert ("tables are of the model in torch" in told) == (variant != "fp32")


def test_cells_and_labels_stand_for_nothing_but_themselves() -> None:
    told = markdown.table(Table("x", (("A", "text"), ("B", "number")), [["a|b\n<b>*c*", "[1](u)"]]))
    assert told == "| A | B |\n| --- | ---: |\n| a\\|b &lt;b&gt;\\*c\\* | \\[1\\](u) |\n"


def test_names_with_signs_of_yaml_stay_names(card: Card) -> None:
    odd = card.manifest.model_copy(update={"name": "a: [b]\n- c #d"})
    data = ModelCard(render_card(replace(card, manifest=odd))).data
    assert data.eval_results[0].dataset_name == "a: [b]\n- c #d"
