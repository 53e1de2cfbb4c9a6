"""Write the ensemble as a bundle and compare it with torch on the whole test split."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
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
from fuseline.errors import NotFiniteError
from fuseline.evaluation.predictions import probabilities, truth_of
from fuseline.export.bundle import Contents, draft, finish
from fuseline.export.graph import count_nodes, write_graph
from fuseline.export.parity import Reference
from fuseline.export.variants import calibrate, choose, write_variant
from fuseline.inputs.base import Reader
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
from fuseline.report.card import Card, Graph, render_card
from fuseline.runtime.bundle import MODEL
from fuseline.stages import entry
from fuseline.tasks.base import Task
from fuseline.training.checkpoints import load_ensemble, load_readers, read_combination
from fuseline.training.trainer import set_up

HOMES: dict[System, Path] = {"ensemble": entry.TRAIN, "student": entry.DISTILL}
"""Where the members of each lie."""
Done = dict[Variant, dict[str, int]]
"""What was done to the graph of each variant, by kind."""


def main(params: Params) -> None:
    """build/train, combine, distill, evaluate → build/export: bundle/, variants/, beside/, metrics, parity .json."""
    set_up(params.train)
    system, folder = params.export.system, entry.fresh(entry.EXPORT)
    parity, scores = export(params, system, params.export.variants, folder / "variants")
    parity.write(folder / "parity.json")
    write_json(folder / "metrics.json", {"exported": {"system": system, "variant": parity.published, **scores}})
    (folder / "variants" / parity.published).rename(folder / "bundle")
    say(f"export: the bundle holds {parity.published}")
    if params.distill is not None:
        export_beside(params, OTHER[system], parity.published, folder)


def export_beside(params: Params, system: System, published: Variant, folder: Path) -> None:
    """Write the system that is not published as `beside`, in the variant that is: like is to be timed beside like.

    It is `fp32` where that variant would not be published of it, and left out where its answers are no numbers: what is
    published does not depend on it.
    """
    others = folder / "others"
    try:
        parity, _ = export(params, system, list(dict.fromkeys([published, "fp32"])), others)
    except NotFiniteError as error:
        say(f"export: the {system} does not stand beside it: {error}")
    else:
        (others / parity.published).rename(folder / "beside")
        say(f"export: the {system} stands beside it as {parity.published}")
    shutil.rmtree(others)


def export(
    params: Params, system: System, variants: Sequence[Variant], folder: Path
) -> tuple[Parity, Mapping[str, float]]:
    """Write a system as a bundle for each variant that can be published.

    Returns:
        How far they are from torch, and the metrics of the one to be published.
    """
    task = entry.task_of(params)
    ensemble, contents = gather(params, task, system)
    traced, done = write(params, variants, folder, ensemble, contents, load_readers(HOMES[system], ensemble))
    graphs, dropped = measure(params, contents.task, system, folder, ensemble, done)
    for name, graph in graphs.items():
        card = render_card(describe(params, task, system, ensemble.modalities, graph))
        finish(folder / name, replace(contents, variant=name, card=card), ensemble)
    found = {name: graph.exported for name, graph in graphs.items()}
    published = choose(variants, found, params.export.max_drop)
    whole = {key: value for key, value in found["fp32"].model_dump().items() if key in Agreement.model_fields}
    whole |= {"evaluation_agreement": found[published].evaluation_agreement, "drop": found[published].drop}
    parity = Parity(
        **whole, metric=task.headline, published=published, traced_nodes=traced, variants=found, dropped=dropped
    )
    tell(system, parity, task)
    return parity, graphs[published].scores


def write(
    params: Params, variants: Sequence[Variant], folder: Path, ensemble: Ensemble, contents: Contents,
    readers: Mapping[str, Reader],
) -> tuple[int, Done]:  # fmt: skip
    """Draft a bundle for each variant; return the number of nodes as traced, and what was done to the graphs."""
    say("export: writing the graph (about half a minute)")
    plain = made(folder / "fp32")
    traced = write_graph(ensemble, params.export.opset, plain / MODEL, contents.about())
    draft(plain, contents, ensemble, readers)
    done: Done = {"fp32": {}}
    feeds = partial(calibrate, plain, entry.PREPARE / "train", params.export.calibration_rows)
    for name in variants:
        if name != "fp32":
            say(f"export: writing it as {name}")
            of_kind, target = replace(contents, variant=name), made(folder / name)
            done[name] = write_variant(name, plain / MODEL, target / MODEL, of_kind.about(), feeds)
            draft(target, of_kind, ensemble, readers)
    return traced, done


def measure(
    params: Params, task: Task, system: System, folder: Path, ensemble: Ensemble, done: Done
) -> tuple[dict[Variant, Graph], dict[Variant, str]]:
    """Run the test rows through each variant and through torch; drop variants whose answers are no numbers.

    Returns:
        What each variant reaches, and why others were dropped.
    """
    table = pq.read_table(entry.EVALUATE / "predictions.parquet")
    evaluated_UC, truth = probabilities(table, system, task), truth_of(table, task)
    reached = task.score(evaluated_UC, truth)[task.headline]
    reference = Reference.of(folder / "fp32", ensemble, entry.PREPARE / "test", evaluated_UC)
    graphs, dropped = dict[Variant, Graph](), dict[Variant, str]()
    for name, operators in done.items():
        try:
            agreement, probs_UC = reference.compare(folder / name, params.export.parity_batch_sizes)
        except NotFiniteError as error:
            if name == "fp32":
                raise
            dropped[name] = str(error)
            shutil.rmtree(folder / name)
            continue
        scores = task.score(probs_UC, truth)
        exported = Exported(
            **agreement.model_dump(),
            nodes=count_nodes(ir.load(folder / name / MODEL)),
            model_bytes=sum(path.stat().st_size for path in (folder / name).glob(f"{MODEL}*")),
            operators=operators,
            value=scores[task.headline],
            drop=reached - scores[task.headline],
        )
        graphs[name] = Graph(name, exported, scores)
    return graphs, dropped


def tell(system: System, parity: Parity, task: Task) -> None:
    """Say how far each variant is from torch."""
    for name, each in parity.variants.items():
        say(
            f"export {system} as {name}: {each.nodes} nodes, {each.model_bytes / 1e6:.1f} MB, "
            f"largest logit difference {each.max_logit_difference:.1e}, "
            f"argmax equal in {each.argmax_agreement:.1%} of {each.rows} {task.unit}s, "
            f"as evaluated in {each.evaluation_agreement:.1%}, {parity.metric} {each.value:.3f} ({-each.drop:+.3f})"
        )
    for name, why in parity.dropped.items():
        say(f"export {system} as {name}: dropped, {why}")


def made(folder: Path) -> Path:
    """Return a folder that is there now."""
    folder.mkdir(parents=True)
    return folder


def gather(params: Params, task: Task, system: System) -> tuple[Ensemble, Contents]:
    """Load the ensemble, or its student, and what goes into its bundle."""
    fitted = read_combination(entry.DISTILL if system == "student" else entry.COMBINE)
    ensemble, text = load_ensemble(HOMES[system], fitted), encoders_of(params, system).text
    return ensemble, Contents(
        name=params.publish.name,
        task=task.decided(fitted.decoding),
        members=ensemble.names,
        max_tokens=0 if text is None else text.max_length,
        opset=params.export.opset,
        data=sha256_of(entry.DATA / "manifest.json"),
        bases=tell_bases(params, system, ensemble.modalities),
    )


def encoders_of(params: Params, system: System) -> Encoders:
    """Return what the members of a system see with."""
    if system == "student":
        assert params.distill is not None
        return params.distill.encoders or params.encoders
    return params.encoders


def tell_bases(params: Params, system: System, modalities: Sequence[str]) -> dict[str, str]:
    """Name what each modality's encoder began as."""
    encoders = encoders_of(params, system)
    return {modality: tell_encoder(getattr(encoders, modality)) for modality in modalities}


def describe(params: Params, task: Task, system: System, modalities: Sequence[str], graph: Graph) -> Card:
    """Gather what the model card tells."""
    encoders = [getattr(encoders_of(params, system), modality) for modality in modalities]
    return Card(
        name=params.publish.name,
        task=task,
        system=system,
        graph=graph,
        modalities=modalities,
        evaluation=Evaluation.read(entry.EVALUATE / "evaluation.json"),
        preparation=Preparation.read(entry.PREPARE / "preparation.json"),
        manifest=DataManifest.read(entry.DATA / "manifest.json"),
        data=sha256_of(entry.DATA / "manifest.json"),
        encoders=tell_bases(params, system, modalities),
        base_models=[encoder.name for encoder in encoders if is_on_hub(encoder)],
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
