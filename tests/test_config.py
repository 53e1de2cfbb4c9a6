"""params.yaml, read strictly: what is wrong is named, all of it, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuseline.config import Params, load, load_publish
from fuseline.errors import ConfigError

SHIPPED = Path(__file__).parents[1] / "params.yaml"
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def document() -> dict[str, Any]:
    return yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))


@pytest.fixture
def refuse(document: dict[str, Any], tmp_path: Path) -> Callable[[Edit], str]:
    """Edit the shipped params, expect a refusal, and return its words."""

    def attempt(edit: Edit) -> str:
        edit(document)
        path = tmp_path / "params.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            load(path)
        return str(caught.value)

    return attempt


def teach(**changes: Any) -> Edit:
    """Ask for a student like the fusion member; keywords replace keys of its recipe."""

    def edit(document: dict[str, Any]) -> None:
        student = document["members"]["fusions"]["fusion"] | changes
        document["distill"] = {"student": student, "encoders": None, "temperature": 2.0, "weight": 0.5}

    return edit


def publish_student(document: dict[str, Any]) -> None:
    teach()(document)
    document["export"]["system"] = "student"


def put(path: str, value: Any) -> Edit:
    """Set one key by its dotted path."""

    def edit(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[int(parent)] if parent.isdigit() else document[parent]  # type: ignore[call-overload]
        document[last] = value

    return edit


def rule(metric: str = "evaluation.ensemble.accuracy", **keys: Any) -> Edit:
    """Make the gate one rule."""
    return put("gate", [{"name": "a rule", "metric": metric, **keys}])


def test_the_shipped_params_load() -> None:
    params = load(SHIPPED)
    assert list(params.members.all()) == ["all-words", "fusion", "image", "text"]
    assert params.members.modalities() == ["text", "image"]
    assert params.members.experts_on("image") == ["image"]
    assert {rule.kind for rule in params.gate} == {"quality", "serving"}


def test_params_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(SHIPPED).train.seed = 1  # type: ignore[misc]


def test_all_errors_are_told_at_once_with_key_value_and_expectation(refuse: Callable[[Edit], str]) -> None:
    def edit(document: dict[str, Any]) -> None:
        document["prepare"]["val"] = 1.5
        document["encoders"]["text"]["pooling"] = "max"
        del document["train"]["seed"]
        document["members"]["experts"]["image"]["epochs"] = 0

    words = refuse(edit)
    assert "4 wrong" in words
    assert "prepare.val: Input should be less than 1 (found 1.5)" in words
    assert "encoders.text.pooling: Input should be 'mean', 'first' or 'last' (found 'max')" in words
    assert "train.seed: missing; add it" in words
    assert "members.experts.image.epochs: Input should be greater than or equal to 1 (found 0)" in words


def test_an_unknown_key_is_refused_with_the_likely_slip(refuse: Callable[[Edit], str]) -> None:
    words = refuse(put("members.experts.text.learning_rte", 0.1))
    assert "members.experts.text.learning_rte: unknown key (did you mean 'learning_rate'?); remove it" in words


def test_an_unknown_key_like_no_other_is_refused_without_a_guess(refuse: Callable[[Edit], str]) -> None:
    assert "train.zzzzzz: unknown key; remove it" in refuse(put("train.zzzzzz", 1))


def test_a_section_named_as_python_names_it_is_unknown(refuse: Callable[[Edit], str]) -> None:
    assert "validate_: unknown key (did you mean 'validate'?)" in refuse(put("validate_", {}))


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(
        SHIPPED.read_text(encoding="utf-8").replace("  seed: 0\n", "  seed: 0\n  seed: 1\n"), encoding="utf-8"
    )
    with pytest.raises(ConfigError, match="key 'seed' is given twice, near line"):
        load(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("", "the document"),
        ("- a\n- b\n", "the document"),
        ("? [1]\n: 2\n", "not valid YAML"),
    ],
    ids=["a broken document", "an empty document", "a list", "a key that is a list"],
)
def test_what_is_no_mapping_is_refused(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load(path)


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(b"task: \xff\xfe\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read \(No such file or directory\)"):
        load(tmp_path / "nowhere.yaml")


HALFWAY = {
    "a wrong value elsewhere": ("  seed: 0\n", "  seed: many\n"),
    "an unknown key elsewhere": ("  seed: 0\n", "  sed: 0\n"),
    "a key given twice elsewhere": ("  seed: 0\n", "  seed: 0\n  seed: 1\n"),
    "an unknown section": ("publish:", "zzz: 1\npublish:"),
    "no other section": (SHIPPED.read_text(encoding="utf-8").partition("publish:")[0], ""),
}


@pytest.mark.parametrize(("old", "new"), HALFWAY.values(), ids=HALFWAY.keys())
def test_a_rollback_needs_the_publish_section_alone_and_minds_not(old: str, new: str, tmp_path: Path) -> None:
    path, text = tmp_path / "params.yaml", SHIPPED.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError):
        load(path)
    assert load_publish(path) == load(SHIPPED).publish


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "publish:\n  name: Fusion\n",
            r"3 wrong\n  publish.name: String should match .*\n  publish.remote: missing.*\n  publish.accept_inc",
        ),
        ("task: {}\n", "publish: missing; add it"),
        ("", "the document"),
        ("- publish\n", "the document"),
        ("publish:\n  name: a\n  name: b\n", r"params\.yaml: key 'name' is given twice, near line 2"),
        ("publish: {name: a, remote: null}\npublish: {name: b, remote: null}\n", "key 'publish' is given twice"),
        ("task: [\npublish: {name: a, remote: null}\n", "not valid YAML"),
    ],
    ids=["wrong keys", "no section", "no document", "a list", "a key twice", "two sections", "no YAML at all"],
)
def test_a_rollback_is_told_what_is_wrong_with_the_publish_section(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        load_publish(path)


MEMBERS = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["members"]
EXPERTS = MEMBERS["experts"]
UNSTARTED = MEMBERS["fusions"]["fusion"] | {"start": {}}
FUSION = "members.fusions.fusion"
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": "attention"}
WRONG = {
    "a label may not be listed twice": (put("task.labels", ["a", "b", "a"]), "a label is listed twice"),
    "one label is no problem to solve": (put("task.labels", ["a"]), "classification takes 2 or more, 1 found"),
    "val and test may not take everything": (put("prepare.val", 0.8), "val + test is 1; expected between 0 and 1"),
    "weights belong to the named network": (put("encoders.image.weights", "DEFAULT"), "weights must be null"),
    "a ResNet has four stages": (put("encoders.image.blocks", [1, 1]), "at least 4 items"),
    "a text expert has no pictures to change": (
        put("members.experts.text.augment", EXPERTS["image"]["augment"]),
        "augment.image: the member does not use image; remove it",
    ),
    "layout is of a text in a picture": (
        teach(modalities=["text", "audio"], start={}, tuning={"text": "full", "audio": "full"}, augment={}, layout=True,
              learning_rate={"text": 1e-4, "audio": 1e-4, "head": 1e-3}),
        "layout is true, but modalities are text, audio; it is of text and image",
    ),
    "words that move are not where their boxes say": (
        put(f"{FUSION}.layout", True), "layout is true, and augment.text moves words away from where their boxes say",
    ),
    "a picture expert has no words to change": (
        put("members.experts.image.augment", {"text": {"drop": 0.1, "swap": 0.1}}),
        "augment.text: the member does not use text; remove it",
    ),
    "nesterov looks along a momentum": (
        put("members.experts.text.optimizer", {"momentum": 0.0, "nesterov": True}),
        "nesterov needs a momentum above 0",
    ),
    "an optimizer needs all its numbers": (
        put("members.experts.text.optimizer", {"momentum": 0.9}),
        "members.experts.text.optimizer.sgd.nesterov: missing",
    ),
    "a constant schedule has no warmup": (put("members.experts.text.schedule", "constant"), "set warmup to 0"),
    "a step has a row for each part": (
        put("members.experts.text.accumulation", 33),
        "accumulation is 33; expected at most batch_size, 32",
    ),
    "class weights are for all classes": (
        put("members.experts.text.class_weights", {"Objects": 2.0}),
        "class_weights of member text: expected one per label; 'Activities' does not fit",
    ),
    "a fusion member needs two modalities": (put(f"{FUSION}.modalities", ["text"]), "at least 2 items"),
    "a modality may not be listed twice": (put(f"{FUSION}.modalities", ["text", "text"]), "a modality is listed twice"),
    "an unknown modality is refused": (put(f"{FUSION}.modalities", ["text", "sound"]), "'text', 'image' or 'audio'"),
    "a fusion member needs an expert on each modality": (
        put("members", {"experts": {"text": EXPERTS["text"]}, "fusions": {"fusion": UNSTARTED}}),
        "fusions.fusion.modalities: there is no expert on image",
    ),
    "attention's heads share the width": (
        put(f"{FUSION}.fusion", {"heads": 3, "layers": 1}),
        "hidden is 256; expected a multiple of fusion.heads, 3",
    ),
    "a router chooses from the experts that there are": (
        put(f"{FUSION}.fusion", {"experts": 2, "chosen": 3, "balance": 0.01}),
        "chosen is 3; expected at most experts, 2",
    ),
    "a mixture has at least two experts": (
        put(f"{FUSION}.fusion", {"experts": 1, "chosen": 1, "balance": 0.01}),
        "fusion.mixture.experts: Input should be greater than or equal to 2",
    ),
    "an unknown fusion is refused": (put(f"{FUSION}.fusion", "mean"), "'concat', 'gated' or 'late'"),
    "a start needs an expert on its modality": (
        put("members.experts", {"text": EXPERTS["text"]}),
        "fusions.all-words.start.image: there is no expert on image to start from",
    ),
    "a start needs an expert": (
        put(f"{FUSION}.start", {"image": "nobody"}),
        "fusions.fusion.start.image: 'nobody' is no expert on image; expected image",
    ),
    "a start needs an expert on that modality": (
        put(f"{FUSION}.start", {"image": "text"}),
        "fusions.fusion.start.image: 'text' is no expert on image; expected image",
    ),
    "a name stands for one member": (
        lambda document: document["members"]["fusions"].update(text=document["members"]["fusions"]["fusion"]),
        "text names both an expert and a fusion member",
    ),
    "a member's name is a folder's": (
        lambda document: document["members"]["fusions"].update({"../x": document["members"]["fusions"]["fusion"]}),
        "should match pattern",
    ),
    "experts are needed": (put("members", {"experts": {}, "fusions": {}}), "at least 1 item"),
    "a rule needs a bound": (rule(), "set exactly one of min, max, margin and gap"),
    "a rule's metric is of one of the two verdicts": (
        rule(metric="loss", min=1), "begins with none of evaluation., drift., export.",
    ),
    "drift has few names": (rule(metric="drift.colour", max=1), "drift has labels, modalities, text_length"),
    "a gap is between slices": (rule(gap=0.1), "a gap is one between slices; set slice"),
    "a gap is not negative": (rule(gap=-0.1, slice={"by": "label", "min_rows": 5}), "greater than or equal to 0"),
    "power is of margins": (rule(min=0.1, power=0.8), "power and test are of rules with a margin"),
    "McNemar's test is of margins": (rule(max=0.1, test="mcnemar"), "power and test are of rules with a margin"),
    "McNemar's test is of the accuracy": (
        rule(metric="evaluation.ensemble.macro_f1", margin=0, test="mcnemar", confidence=0.9),
        "takes a confidence, and the metric accuracy",
    ),
    "McNemar's test has a confidence": (rule(margin=0, test="mcnemar"), "takes a confidence, and the metric accuracy"),
    "a speed has no interval": (rule(metric="benchmark.load_ms", max=1, confidence=0.9), "has no interval"),
    "a confidence below one half is none": (rule(min=0.1, confidence=0.4), "greater than or equal to 0.5"),
    "a speed has no slices": (
        rule(metric="benchmark.load_ms", max=1, slice={"by": "label", "min_rows": 5}),
        "slices have evaluation.ensemble. and evaluation.student. metrics",
    ),
    "a rule's slices are measured": (
        rule(min=0.1, slice={"by": "meta.age", "min_rows": 5}), "'meta.age', which evaluate.slices does not list",
    ),
    "a slice is by something": (put("evaluate.slices", ["colour"]), "expected one of label, modalities, length"),
    "a slice by meta names a column": (put("evaluate.slices", ["meta."]), "or meta.COLUMN"),
    "a slice is listed once": (put("evaluate.slices", ["label", "label"]), "slices: one is listed twice"),
    "who accepts says why": (
        put("publish.accept_incomparable", {"champion": "v1.0.0", "by": "Ada"}), "accept_incomparable.reason: missing",
    ),
    "a margin is to the champion's evaluation": (
        put("gate", [{"name": "a", "metric": "benchmark.load_ms", "margin": 0}]),
        "with the champion's, not 'benchmark.load_ms'",
    ),
    "a rule has one bound": (put("gate.0.max", 1), "set exactly one of min, max, margin and gap"),
    "a learning rate of zero is not null": (put("members.experts.text.learning_rate.encoder", 0), "greater than 0"),
    "the head is never frozen": (put("members.experts.text.learning_rate.head", None), "valid number"),
    "a frozen encoder has no learning rate": (
        put("members.experts.text.tuning", "frozen"),
        "tuning is frozen, but learning_rate.encoder is not null",
    ),
    "an encoder without a learning rate is frozen": (
        put(f"{FUSION}.learning_rate.image", None),
        "tuning.image is trained, but learning_rate.image is null",
    ),
    "a fusion member tunes each of its modalities": (
        put(f"{FUSION}.tuning", {"text": "full"}),
        "tuning: expected text, image; found text",
    ),
    "a fusion member names a rate for each of its modalities, and no other": (
        put(f"{FUSION}.learning_rate", {"text": 1.0e-4, "audio": 1.0e-4, "head": 1.0e-3}),
        "learning_rate: expected text, image; found text, audio",
    ),
    "a modality that a member uses has an encoder": (
        put("encoders.image", None),
        "encoders.image: null, but image uses it; set it",
    ),
    "a pretrained encoder of sound is pinned": (
        put("encoders.audio", {"name": "org/model", "revision": None, "max_seconds": 1.0}),
        "set revision to the commit of 'org/model'",
    ),
    "an unknown tuning is refused": (
        put("members.experts.text.tuning", "lora"),
        "Input should be 'full', 'bitfit' or 'frozen' (found 'lora')",
    ),
    "adapters need all their numbers": (put("members.experts.text.tuning", {"rank": 8}), "tuning.lora.alpha: missing"),
    "a decay of one is no decay": (
        put("members.experts.text.learning_rate.encoder", {"top": 1.0e-4, "decay": 1.0}),
        "less than 1",
    ),
    "a dropout of one leaves nothing": (put("members.experts.text.dropout", 1.0), "less than 1"),
    "patience of zero is not null": (put("members.experts.text.patience", 0), "greater than or equal to 1"),
    "a batch size is whole": (put("members.experts.text.batch_size", 2.5), "integer"),
    "weight decay is a number": (put("members.experts.text.weight_decay", math.nan), "weight_decay"),
    "confidence of one is no interval": (put("evaluate.confidence", 1.0), "less than 1"),
    "a hub id is pinned": (put("encoders.text.name", "org/model"), "set revision to the commit of 'org/model'"),
    "a package is pinned already": (put("encoders.text.revision", "main"), "a package's version stands in"),
    "an old opset is refused": (put("export.opset", 17), "greater than or equal to 18"),
    "an opset that is not tried is refused": (put("export.opset", 23), "less than or equal to 22"),
    "a soup of one is none": (put("members.experts.text.soup", {"seeds": 1}), "greater than or equal to 2"),
    "no row replayed is no replay": (put("members.experts.text.warm_start", {"replay": 0.0}), "greater than 0"),
    "a student is on what the ensemble is on": (
        teach(modalities=["text", "audio"], start={}, tuning={"text": "full", "audio": "full"}, augment={},
              learning_rate={"text": 1e-4, "audio": 1e-4, "head": 1e-3}),
        "expected what the ensemble is on, text and image",
    ),
    "a student starts from experts that there are": (teach(start={"image": "text"}), "'text' is no expert on image"),
    "a student is trained anew": (teach(warm_start={"replay": 1.0}), "student.warm_start: a student is trained anew"),
    "the ensemble is not asked about mixed pictures": (
        teach(augment={"image": {"flip": 0, "degrees": 0, "translate": 0, "scale": 0, "color": 0, "erase": 0,
                                 "mixup": 1}}),
        "said nothing of mixed pictures",
    ),
    "a student that nobody trains is not published": (put("export.system", "student"), "there is no student"),
    "rules judge what is published": (publish_student, "set its metric to evaluation.student.accuracy"),
    "equal weights have no patterns": (
        lambda document: document["combine"].update(weights="equal", patterns={"pull": 9.0}),
        "the weights are equal whatever is there",
    ),
    "no batch size is no benchmark": (put("benchmark.batch_sizes", []), "at least 1 item"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_config_says_that(case: str, refuse: Callable[[Edit], str]) -> None:
    edit, words = WRONG[case]
    assert words in refuse(edit)


RIGHT = {
    "no fusion member": put("members.fusions", {}),
    "no gate rule": put("gate", []),
    "a paired test of non-inferiority": rule(margin=-0.02, confidence=0.95, test="mcnemar", power=0.8),
    "a margin in each slice": rule(margin=-0.2, confidence=0.8, slice={"by": "label", "min_rows": 20}),
    "a gap between slices": rule(gap=0.1, confidence=0.8, slice={"by": "label", "min_rows": 20}),
    "slices by meta": put("evaluate.slices", ["label", "meta.age group"]),
    "a decision": put("publish.accept_incomparable", {"champion": "v1.0.0", "by": "Ada", "reason": "X was split"}),
    "a fusion member that starts as loaded": put(f"{FUSION}.start", {}),
    "a student": teach(),
    "weights by pattern": put("combine.patterns", {"pull": 50.0}),
    "stacking": put("combine.stack", {"penalties": [0.1, 1.0], "folds": 5}),
    "a soup": put("members.experts.text.soup", {"seeds": 3}),
    "a member that goes on": put("members.experts.text.warm_start", {"replay": 0.2}),
    "no augmentation": put("members.experts.image.augment", {}),
    "places of words": put(FUSION, MEMBERS["fusions"]["fusion"] | {"layout": True, "augment": {}}),
    "words and pictures that change": put(f"{FUSION}.augment.text", {"drop": 0.1, "swap": 0.1}),
    "plain gradient descent": put("members.experts.text.optimizer", {"momentum": 0.0, "nesterov": False}),
    "restarts": put("members.experts.text.schedule", {"cycles": 2}),
    "a polynomial": put("members.experts.text.schedule", {"power": 2, "end": 0}),
    "a focal loss": put("members.experts.text.loss", {"gamma": 2}),
    "balanced classes": put("members.experts.text.class_weights", "balanced"),
    "frozen encoders": lambda document: document["members"]["fusions"]["fusion"].update(
        tuning={"text": "frozen", "image": "frozen"}, learning_rate={"text": None, "image": None, "head": 1.0e-3}
    ),
    "adapters": put("members.experts.text.tuning", LORA),
    "the last layers": put("members.experts.image.tuning", {"layers": 2}),
    "a learning rate that falls from layer to layer": put(
        "members.experts.text.learning_rate.encoder", {"top": 1.0e-4, "decay": 0.8}
    ),
    "a network of its own depth": put("encoders.image.blocks", None),
}


@pytest.mark.parametrize("case", RIGHT)
def test_config_accepts(case: str, document: dict[str, Any]) -> None:
    RIGHT[case](document)
    assert Params.model_validate(document)


def test_modalities_are_those_that_members_use(document: dict[str, Any]) -> None:
    document["members"]["fusions"] = {}
    del document["members"]["experts"]["text"]
    members = Params.model_validate(document).members
    assert members.modalities() == ["image"]
    assert members.experts_on("text") == []


def test_the_order_of_keys_orders_neither_members_nor_the_experts_on_a_modality(document: dict[str, Any]) -> None:
    experts = document["members"]["experts"]
    experts["another"] = experts["image"]
    there = Params.model_validate(document).members
    document["members"]["experts"] = dict(reversed(experts.items()))
    back = Params.model_validate(document).members
    assert list(there.all()) == list(back.all()) == ["all-words", "another", "fusion", "image", "text"]
    assert there.experts_on("image") == back.experts_on("image") == ["another", "image"]


def test_a_word_that_yaml_takes_for_a_truth_value_is_told(tmp_path: Path) -> None:
    document = yaml.safe_load(SHIPPED.read_text())
    document["task"]["labels"] = ["yes", False]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match="truth values: put them in quotes"):
        load(tmp_path / "params.yaml")
