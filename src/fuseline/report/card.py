"""The model card in the form of Hugging Face: what a bundle reaches, where it is weaker, and what it was made from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from huggingface_hub import EvalResult, ModelCardData

from fuseline.records import DataManifest, Evaluation, Exported, Preparation, System, Variant
from fuseline.report import markdown, numbers, tables
from fuseline.report.exported import TELLS
from fuseline.tasks.base import Task

PIPELINES = {"text": "text-classification", "image": "image-classification", "audio": "audio-classification"}
"""Hugging Face's name of the task where rows have a label and one modality; there is none for several."""
METRIC_TYPES = {"macro_f1": "f1", "map": "mean_average_precision"}
"""Where Hugging Face's name of a metric is another one."""

CARD = """\
---
{data}
---

# {name}

{what}

## Reached on the test split ({rows:,} rows)

{graph}

{systems}
Intervals are {confidence:.0%} bootstrap intervals, whole groups of rows drawn. ↓ lower is better.{calibration}

Labels: {labels}.

{parts}## Made from

{made}

{splits}"""


@dataclass(frozen=True)
class Graph:
    """The graph in a bundle, and what it was found to reach."""

    variant: Variant
    exported: Exported
    scores: Mapping[str, float]
    """By metric, on the test rows."""


@dataclass(frozen=True)
class Card:
    """What a card tells."""

    name: str
    task: Task
    system: System
    """What the bundle holds: the ensemble, or the student that learnt from it."""
    graph: Graph
    modalities: Sequence[str]
    evaluation: Evaluation
    """Of the model in torch."""
    preparation: Preparation
    manifest: DataManifest
    data: str
    """sha256 of the data set's manifest."""
    encoders: Mapping[str, str]
    """By modality, what its encoder began as."""
    base_models: Sequence[str] = ()
    """Those of them that are ids on the Hugging Face hub."""


def render_card(card: Card) -> str:
    """Write the card in Markdown, up to how the bundle is used."""
    evaluation = card.evaluation
    return CARD.format(
        data=describe_data(card).to_yaml(),
        name=card.name,
        what=describe(card.modalities, len(evaluation.members) if card.system == "ensemble" else 1, card.task.needs),
        rows=evaluation.rows,
        graph=tell_graph(card.graph, tables.shown(evaluation)[0]),
        systems=markdown.table(_reached(card)),
        confidence=evaluation.confidence,
        calibration=f" The temperature is {evaluation.temperature:.3f}." if card.system == "ensemble" else "",
        labels=", ".join(map(markdown.escape, card.task.labels)),
        parts=_tell_parts(tables.parts(evaluation, card.system)),
        made=_made_from(card),
        splits=markdown.table(tables.splits(card.preparation), caption=True),
    )


def describe_data(card: Card) -> ModelCardData:
    """Return the metadata at the head of the card; the results become its model-index."""
    task = find_pipeline(card.task, card.modalities)
    reached = card.graph.scores
    results = [
        EvalResult(
            task_type=task or card.task.kind,
            dataset_type=card.manifest.name,
            dataset_name=card.manifest.name,
            dataset_split="test",
            dataset_revision=card.data,
            metric_type=METRIC_TYPES.get(key, key),
            metric_name=name.removesuffix(" ↓"),
            metric_value=round(reached[key], 6),
        )
        for key, name in tables.METRICS.items()
        if key in reached and math.isfinite(reached[key])
    ]
    several = ["multimodal"] if len(card.modalities) > 1 else []
    return ModelCardData(
        library_name="onnx",
        model_name=card.name,
        pipeline_tag=task,
        base_model=list(card.base_models) or None,
        metrics=sorted({result.metric_type for result in results}),
        tags=[*card.modalities, *several, "fuseline"],
        eval_results=results,
    )


def find_pipeline(task: Task, modalities: Sequence[str]) -> str | None:
    """Return Hugging Face's name of the task, if it has one."""
    if task.words:
        return "token-classification"
    return PIPELINES.get(modalities[0]) if len(modalities) == 1 else None


def describe(modalities: Sequence[str], members: int, needs: Sequence[str] = ()) -> str:
    """Say in a paragraph what the graph is.

    Args:
        needs: modalities that a row must have.
    """
    missing = (
        f"All but {' and '.join(needs)} may be missing."
        if needs
        else ("Any of the modalities may be missing, but not all.")
    )
    takes = {"text": "raw text tokens", "image": "uint8 pictures of any size", "audio": "raw samples of any length"}
    steps = [
        *["resizing and normalising"] * ("image" in modalities), *["spectra or scaling"] * ("audio" in modalities),
        *["combining"] * (members > 1), "calibration",
    ]  # fmt: skip
    kind = f"an ensemble of {members} members" if members > 1 else "one model"
    return (
        f"One ONNX graph holding {kind} on {' and '.join(modalities)}.\n"
        f"It takes {' and '.join(takes[name] for name in modalities)}; inside it does {', '.join(steps)}."
        + (f"\n{missing}" if len(modalities) > 1 else "")
    )


def tell_graph(graph: Graph, metric: str) -> str:
    """Say how the graph is written, what it reaches and what that costs."""
    drop = round(graph.exported.drop, 3)
    against = f"{abs(drop):.3f} {'less' if drop > 0 else 'more'} than in torch" if drop else "as in torch"
    told = (
        f"The graph is in {TELLS[graph.variant]} (`{graph.variant}`, {numbers.size(graph.exported.model_bytes)}).\n"
        f"Measured with it, {numbers.name(metric)} is {numbers.metric(graph.exported.value)}, {against}."
    )
    return told if graph.variant == "fp32" else f"{told}\nBut for the first row, tables are of the model in torch."


def _reached(card: Card) -> tables.Table:
    """Set what the bundle reaches first: of a graph in single precision that is what its model does."""
    table = tables.reached(card.evaluation, card.system)
    if card.graph.variant == "fp32":
        return table
    value, *others = (numbers.metric(card.graph.scores.get(key)) for key in tables.shown(card.evaluation))
    own = [f"{card.system} as {card.graph.variant} (this bundle)", value, numbers.DASH, *others]
    first, *rest = table.rows
    return replace(table, rows=[own, [f"{card.system} in torch", *first[1:]], *rest])


def _tell_parts(parts: Sequence[tables.Table]) -> str:
    return f"## Where it is stronger and weaker\n\n{markdown.list_tables(parts)}\n" if parts else ""


def _made_from(card: Card) -> str:
    encoders = ", ".join(f"{modality} {markdown.escape(name)}" for modality, name in card.encoders.items())
    return (
        f"Data set {markdown.escape(card.manifest.name)}, {card.manifest.rows:,} rows; sha256 of its manifest\n"
        f"`{card.data}`. Encoders began as: {encoders}."
    )
