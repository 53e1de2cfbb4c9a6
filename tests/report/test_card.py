"""The model card says what a bundle reaches where Hugging Face looks for it, and nothing in it is taken for markup."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard

from fuseline.records import Slice, System
from fuseline.report import markdown
from fuseline.report.card import Card, render_card
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
    told = render_card(replace(card, evaluation=evaluation, system=system))
    (row,) = (line for line in told.splitlines() if "(this bundle)" in line)
    value = evaluation.of(system)["accuracy"].value
    assert row.startswith(f"| {system} (this bundle) | {value:.3f} |")
    result = next(r for r in ModelCard(told).data.eval_results if r.metric_type == "accuracy")
    assert result.metric_value == pytest.approx(value, abs=1e-6)


def test_cells_and_labels_stand_for_nothing_but_themselves() -> None:
    told = markdown.table(Table("x", (("A", "text"), ("B", "number")), [["a|b\n<b>*c*", "[1](u)"]]))
    assert told == "| A | B |\n| --- | ---: |\n| a\\|b &lt;b&gt;\\*c\\* | \\[1\\](u) |\n"


def test_names_with_signs_of_yaml_stay_names(card: Card) -> None:
    odd = card.manifest.model_copy(update={"name": "a: [b]\n- c #d"})
    data = ModelCard(render_card(replace(card, manifest=odd))).data
    assert data.eval_results[0].dataset_name == "a: [b]\n- c #d"
