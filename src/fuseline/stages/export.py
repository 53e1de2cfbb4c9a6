"""Write the ensemble as a bundle and compare it with torch on the whole test split."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import onnx_ir as ir
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
from fuseline.evaluation.predictions import probabilities, truth_of
from fuseline.export.bundle import Contents, write_bundle
from fuseline.export.graph import count_nodes, write_graph
from fuseline.export.parity import Reference
from fuseline.export.variants import choose, write_variant
from fuseline.models.ensemble import Ensemble
from fuseline.progress import say
from fuseline.records import (
    OTHER,
    Agreement,
    DataManifest,
    Evaluation,
    Exported,
    Parity,
    Preparation,
    System,
    Variant,
    sha256_of,
    write_json,
)
from fuseline.report.card import Card, render_card
from fuseline.runtime.bundle import MODEL
from fuseline.runtime.predictor import Feeds, Predictor
from fuseline.runtime.rows import read_parquet
from fuseline.stages import entry
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_ensemble, load_readers, read_combination
from fuseline.training.trainer import set_up

HOMES: dict[System, Path] = {"ensemble": entry.TRAIN, "student": entry.DISTILL}
"""Where the members of each lie."""


def main(params: Params) -> None:
    """build/train, combine, distill, evaluate → build/export: bundle/, variants/, beside/, metrics, parity .json."""
    set_up(params.train)
    task, system, settings = entry.task_of(params), params.export.system, params.export
    folder = entry.fresh(entry.EXPORT)
    ensemble, contents = gather(params, task, system)
    readers = load_readers(HOMES[system], ensemble)
    say("export: writing the graph (about half a minute)")
    plain = folder / "variants" / "fp32"
    traced = write_graph(ensemble, settings.opset, made(plain) / MODEL, contents.about())
    write_bundle(plain, contents, ensemble, readers)
    done: dict[Variant, dict[str, int]] = {"fp32": {}}
    for name in settings.variants:
        if name != "fp32":
            say(f"export: writing it as {name}")
            of_kind = replace(contents, variant=name)
            target = made(folder / "variants" / name)
            feeds = partial(read_feeds, plain, settings.calibration_rows)
            done[name] = write_variant(name, plain / MODEL, target / MODEL, of_kind.about(), feeds)
            write_bundle(target, of_kind, ensemble, readers)
    parity, scores = compare(params, contents.task, folder / "variants", ensemble, done, traced)
    parity.write(folder / "parity.json")
    write_json(folder / "metrics.json", {"exported": {"system": system, "variant": parity.published, **scores}})
    (folder / "variants" / parity.published).rename(folder / "bundle")
    if params.distill is not None:
        other, contents = gather(params, task, OTHER[system])
        write_bundle(folder / "beside", contents, other, load_readers(HOMES[OTHER[system]], other))
    tell(parity, task)


def compare(
    params: Params, task: Task, folder: Path, ensemble: Ensemble, done: Mapping[Variant, dict[str, int]], traced: int
) -> tuple[Parity, dict[str, float]]:
    """Run the test rows through each variant and through torch.

    Args:
        done: by variant, what was done to its graph.

    Returns:
        How far they are from each other, and the metrics of the one to be published.
    """
    table = pq.read_table(entry.EVALUATE / "predictions.parquet")
    evaluated_UC, truth = probabilities(table, params.export.system, task), truth_of(table, task)
    metric, sizes = task.headline, params.export.parity_batch_sizes
    reached = task.score(evaluated_UC, truth)[metric]
    reference = Reference.of(folder / "fp32", ensemble, entry.PREPARE / "test", evaluated_UC)
    found, scores = dict[Variant, Exported](), {}
    for name, operators in done.items():
        agreement, probs_UC = reference.compare(folder / name, sizes)
        scores[name] = task.score(probs_UC, truth)
        found[name] = Exported(
            **agreement.model_dump(),
            nodes=count_nodes(ir.load(folder / name / MODEL)),
            model_bytes=sum(path.stat().st_size for path in (folder / name).glob(f"{MODEL}*")),
            operators=operators,
            value=scores[name][metric],
            drop=reached - scores[name][metric],
        )
    published = choose(params.export.variants, found, params.export.max_drop)
    whole = {
        **{key: value for key, value in found["fp32"].model_dump().items() if key in Agreement.model_fields},
        "evaluation_agreement": found[published].evaluation_agreement,
    }
    parity = Parity(
        **whole, metric=metric, drop=found[published].drop, published=published, traced_nodes=traced, variants=found
    )
    return parity, scores[published]


def read_feeds(bundle: Path, rows: int) -> Iterator[Feeds]:
    """Return a graph's inputs for so many training rows, at most, spread over all that it can answer."""
    predictor = Predictor(bundle, public_key=None)
    modalities, train = predictor.bundle.modalities, entry.PREPARE / "train"
    read = partial(read_parquet, train, modalities, predictor.task.wanted(modalities), predictor.several)
    there = sum(1 for _ in read())
    chosen = {number * there // rows for number in range(rows)}
    return predictor.feeds_of(row for number, row in enumerate(read()) if number in chosen)


def tell(parity: Parity, task: Task) -> None:
    """Say how far each variant is from torch, and which is published."""
    for name, each in parity.variants.items():
        say(
            f"export {name}: {each.nodes} nodes, {each.model_bytes / 1e6:.1f} MB, "
            f"largest logit difference {each.max_logit_difference:.1e}, "
            f"argmax equal in {each.argmax_agreement:.1%} of {each.rows} {task.unit}s, "
            f"as evaluated in {each.evaluation_agreement:.1%}, {parity.metric} {each.value:.3f} ({-each.drop:+.3f})"
        )
    say(f"export: the bundle holds {parity.published}")


def made(folder: Path) -> Path:
    """Return a folder that is there now."""
    folder.mkdir(parents=True)
    return folder


def gather(params: Params, task: Task, system: System) -> tuple[Ensemble, Contents]:
    """Load the ensemble, or its student, and what goes into its bundle."""
    combination, encoders = entry.COMBINE, params.encoders
    if system == "student":
        assert params.distill is not None
        combination, encoders = entry.DISTILL, params.distill.encoders or encoders
    fitted = read_combination(combination)
    ensemble = load_ensemble(HOMES[system], fitted)
    card = describe(params, task, system, encoders, ensemble.modalities)
    return ensemble, Contents(
        name=params.publish.name,
        task=task.decided(fitted.decoding),
        members=ensemble.names,
        max_tokens=0 if encoders.text is None else encoders.text.max_length,
        opset=params.export.opset,
        data=sha256_of(entry.DATA / "manifest.json"),
        card=render_card(card),
        bases=dict(card.encoders),
    )


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
