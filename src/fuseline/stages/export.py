"""Write the ensemble as a bundle and compare it with torch on the whole test split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from fuseline.config import (
    AnyImageEncoder,
    AudioCnn,
    AudioEncoder,
    Encoders,
    ImageEncoder,
    Params,
    TextEncoder,
)
from fuseline.evaluation.metrics import values_of
from fuseline.evaluation.predictions import COLUMNS, probabilities
from fuseline.export.bundle import Contents, write_bundle
from fuseline.export.parity import compare
from fuseline.models.ensemble import Ensemble
from fuseline.progress import say
from fuseline.records import OTHER, DataManifest, Evaluation, Preparation, System, sha256_of, write_json
from fuseline.report.card import Card, render_card
from fuseline.stages import entry
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_ensemble, load_readers, read_combination
from fuseline.training.trainer import set_up


def main(params: Params) -> None:
    """build/train, combine, distill, evaluate → build/export: bundle/, beside/ if a student, metrics, parity .json."""
    set_up(params.train)
    task, system = entry.task_of(params), params.export.system
    folder = entry.fresh(entry.EXPORT)
    ensemble = write(params, task, system, folder / "bundle")
    if params.distill is not None:
        write(params, task, OTHER[system], folder / "beside")
    predictions = pq.read_table(entry.EVALUATE / "predictions.parquet", columns=[COLUMNS[system]])
    evaluated_UC = probabilities(predictions, system, task)
    parity = compare(
        folder / "bundle", ensemble, entry.PREPARE / "test", evaluated_UC, params.export.parity_batch_sizes
    )
    parity.write(folder / "parity.json")
    reached = values_of(Evaluation.read(entry.EVALUATE / "evaluation.json").of(system))
    write_json(folder / "metrics.json", {"exported": {"system": system, **reached}})
    say(
        f"export: largest logit difference {parity.max_logit_difference:.1e}, "
        f"argmax equal in {parity.argmax_agreement:.1%} of {parity.rows} {task.unit}s, "
        f"as evaluated in {parity.evaluation_agreement:.1%}"
    )


def write(params: Params, task: Task, system: System, folder: Path) -> Ensemble:
    """Write the bundle of the ensemble, or of its student."""
    home, combination, encoders = entry.TRAIN, entry.COMBINE, params.encoders
    if system == "student":
        assert params.distill is not None
        home = combination = entry.DISTILL
        encoders = params.distill.encoders or encoders
    fitted = read_combination(combination)
    ensemble = load_ensemble(home, fitted)
    card = describe(params, task, system, encoders, ensemble.modalities)
    contents = Contents(
        name=params.publish.name,
        task=task.decided(fitted.decoding),
        members=ensemble.names,
        max_tokens=0 if encoders.text is None else encoders.text.max_length,
        opset=params.export.opset,
        data=sha256_of(entry.DATA / "manifest.json"),
        card=render_card(card),
        bases=dict(card.encoders),
    )
    write_bundle(folder, contents, ensemble, load_readers(home, ensemble))
    return ensemble


def describe(params: Params, task: Task, system: System, encoders: Encoders, modalities: Sequence[str]) -> Card:
    """Gather what the model card tells."""
    chosen = {modality: getattr(encoders, modality) for modality in modalities}
    return Card(
        name=params.publish.name,
        task=task,
        system=system,
        modalities=modalities,
        evaluation=Evaluation.read(entry.EVALUATE / "evaluation.json"),
        preparation=Preparation.read(entry.PREPARE / "preparation.json"),
        manifest=DataManifest.read(entry.DATA / "manifest.json"),
        data=sha256_of(entry.DATA / "manifest.json"),
        encoders={modality: tell_encoder(encoder) for modality, encoder in chosen.items()},
        base_models=[encoder.name for encoder in chosen.values() if is_on_hub(encoder)],
    )


def tell_encoder(encoder: TextEncoder | AnyImageEncoder | AudioEncoder) -> str:
    """Name what an encoder began as; of a local folder the name alone."""
    if isinstance(encoder, AudioCnn):
        return "a log-mel network from nothing"
    if isinstance(encoder, ImageEncoder):
        return f"{encoder.name} ({encoder.weights or 'from nothing'})"
    name = encoder.name if is_on_hub(encoder) else Path(encoder.name.removeprefix("package:")).name
    return f"{name} at {encoder.revision[:12]}" if encoder.revision else name


def is_on_hub(encoder: TextEncoder | AnyImageEncoder | AudioEncoder) -> bool:
    """Tell whether an encoder's name is an id on the Hugging Face hub."""
    if isinstance(encoder, ImageEncoder | AudioCnn):
        return False
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", encoder.name) is not None and not Path(encoder.name).is_dir()


if __name__ == "__main__":
    entry.run(main)
