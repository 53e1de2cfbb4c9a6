"""Champion and challenger are compared as they are served; one that knows other things, never in silence."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuseline.config import Evaluate, Rule
from fuseline.data.shards import write_table
from fuseline.errors import BundleError
from fuseline.evaluation.metrics import Scored, estimate_gain
from fuseline.judge import answer, compare, fetch_champion, refused_by_machine_alone
from fuseline.lineage import registry
from fuseline.lineage.git import git
from fuseline.lineage.workspace import Workspace
from fuseline.records import Bundle, RuleOutcome, Verdict
from fuseline.runtime.predictor import Predictor
from fuseline.tasks.classification import Classification

SETTINGS = Evaluate(resamples=20, confidence=0.9, probe_rows=10, probe_penalty=20.0, probe_steps=300, slices=[],
                    slice_values=20, robustness={})  # fmt: skip
TRUTH = [0, 1, 2] * 3
KNOWN = ["shard-00000-a.parquet"]


@pytest.fixture
def clone(tmp_path: Path, bundle: Path, prepared: Path) -> Path:
    """A run's clone whose challenger is the bundle itself; what torch predicted for it is all wrong."""
    build = tmp_path / "build"
    shutil.copytree(bundle, build / "export" / "bundle")
    shutil.copytree(prepared, build / "prepare")
    wrong = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]] * 3
    columns = {
        "id": [f"row {number}" for number in range(9)],
        "group": list("aabbccdde"),
        "shard": ["shard-00000-a.parquet"] * 4 + ["shard-00001-b.parquet"] * 5,
        "label": TRUTH,
        "probabilities": wrong,
    }
    write_table(pa.table(columns), build / "evaluate" / "predictions.parquet")
    return tmp_path


def describe(folder: Path, **changes: object) -> Path:
    """Change the description of a bundle; that of its files stays true."""
    path = folder / "bundle.json"
    Bundle.read(path).model_copy(update=changes).write(path)
    return folder


def test_a_champion_that_answers_alike_is_neither_better_nor_worse_whatever_torch_said(
    clone: Path, bundle: Path
) -> None:
    comparison = compare("v1.0.0", bundle, clone, SETTINGS)
    assert comparison.against is not None
    assert comparison.why_not == ""
    gains = comparison.against.overall.gain.values()
    assert [gain.value for gain in gains] == pytest.approx([0.0] * 5, abs=1e-6)
    assert (comparison.against.better.count, comparison.against.worse.count) == (0, 0)


def test_labels_in_another_order_are_compared_by_name(clone: Path, bundle: Path, tmp_path: Path) -> None:
    turned = describe(Path(shutil.copytree(bundle, tmp_path / "turned")), labels=["blue", "red", "green"])
    comparison = compare("v1.0.0", turned, clone, SETTINGS)
    task = Classification(["red", "green", "blue"])
    probs = answer(Predictor(bundle), clone / "build/prepare/test", 9, "anybody")
    after, before = (Scored.of(task, each, task.assume_truth(TRUTH)) for each in (probs, probs[:, [1, 2, 0]]))
    groups = np.array(list("aabbccdde"))
    expected = estimate_gain(after, before, groups, SETTINGS.resamples, SETTINGS.confidence)
    assert comparison.against is not None
    for name, gain in expected.items():
        assert comparison.against.overall.gain[name].model_dump() == pytest.approx(gain.model_dump(), abs=1e-6)
    assert expected["nll"].value != 0


def test_a_champion_of_other_labels_is_not_compared_but_asked_what_it_knows(
    clone: Path, bundle: Path, tmp_path: Path
) -> None:
    champion = describe(Path(shutil.copytree(bundle, tmp_path / "other")), labels=["red", "green", "other"])
    comparison = compare("v1.0.0", champion, clone, SETTINGS, KNOWN)
    assert comparison.why_not == "has other labels (the two differ in blue, other)"
    assert comparison.against is not None
    assert comparison.against.per_class["blue"]["recall"].champion == 0.0
    assert comparison.forgetting is not None
    blue = [recall["blue"] for recall in comparison.forgetting.recall.values()]
    assert {each.champion for each in blue} == {0.0}


def test_old_rows_and_new_ones_are_counted_apart_for_champion_and_challenger(
    clone: Path, bundle: Path, tmp_path: Path
) -> None:
    turned = describe(Path(shutil.copytree(bundle, tmp_path / "turned")), labels=["blue", "red", "green"])
    found = compare("v1.0.0", turned, clone, SETTINGS, KNOWN).forgetting
    assert found is not None
    answered = answer(Predictor(bundle), clone / "build/prepare/test", 9, "anybody").argmax(1)
    truth = np.array(TRUTH)
    for age, rows in (("old", slice(0, 4)), ("new", slice(4, 9))):
        assert found.overall[age].rows == len(truth[rows])
        assert found.overall[age].challenger == pytest.approx((answered[rows] == truth[rows]).mean())
        assert found.overall[age].champion == pytest.approx((np.array([2, 0, 1])[answered[rows]] == truth[rows]).mean())
    red = truth[:4] == 0
    assert found.recall["old"]["red"].challenger == pytest.approx((answered[:4][red] == 0).mean())
    assert sum(each.rows for each in found.recall["new"].values()) == 5
    everything = compare("v1.0.0", turned, clone, SETTINGS, ["shard-00000-a.parquet", "shard-00001-b.parquet"])
    assert everything.forgetting is not None
    assert everything.forgetting.overall.keys() == {"old"}


def test_what_flipped_is_told_by_slice_and_by_row(clone: Path, bundle: Path, tmp_path: Path) -> None:
    turned = describe(Path(shutil.copytree(bundle, tmp_path / "turned")), labels=["blue", "red", "green"])
    path = clone / "build" / "evaluate" / "predictions.parquet"
    table = pq.read_table(path)
    halves = pa.array([["first"]] * 4 + [["second"]] * 5)
    write_table(table.append_column("slice.meta.half", halves), path)
    against = compare("v1.0.0", turned, clone, SETTINGS).against
    assert against is not None
    ours = answer(Predictor(bundle), clone / "build/prepare/test", 9, "anybody").argmax(1)
    theirs = np.array([2, 0, 1])[ours]
    better = [f"row {row}" for row in range(9) if ours[row] == TRUTH[row] != theirs[row]]
    assert sorted(flip.id for flip in against.better.shown) == better
    parts = against.slices["meta.half"]
    assert {name: part.rows for name, part in parts.items()} == {"first": 4, "second": 5}
    assert sum(part.better for part in parts.values()) == against.overall.better == len(better)


def test_a_champion_of_other_modalities_is_not_compared(clone: Path, bundle: Path) -> None:
    describe(clone / "build/export/bundle", modalities=["text"])
    comparison = compare("v1.0.0", bundle, clone, SETTINGS)
    assert comparison.against is None
    assert "has other modalities (the two differ in image)" in comparison.why_not


def test_a_champion_that_cannot_be_read_is_told_with_the_ways_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "Start")
    registry.register(tmp_path, "fusion", "HEAD", "v1.0.0", "first")
    registry.assign(tmp_path, "fusion", "v1.0.0", "first")
    workspace = Workspace(tmp_path, "r1", "HEAD")
    git(tmp_path, "clone", "--quiet", str(tmp_path), str(workspace.clone))

    def fetch(*_: object) -> None:
        raise BundleError("bundle.json: the bundle is of format 2")

    monkeypatch.setattr("fuseline.lineage.champion.fetch", fetch)
    with pytest.raises(BundleError, match=r"champion v1\.0\.0 .* of format 2\. If that .*promote.* delete the tags"):
        fetch_champion(workspace, "fusion")


def say(rule: Rule, passed: bool) -> RuleOutcome:
    return RuleOutcome(
        name=rule.name, metric=rule.metric, kind=rule.kind, answer="passed" if passed else "failed", value=0.5,
        bound="", passed=passed, why="",
    )  # fmt: skip


FAST = Rule(name="fast", metric="benchmark.batches.batch_1.p95_ms", max=1)
GOOD = Rule(name="good", metric="evaluation.ensemble.accuracy", min=0.7)
GOOD_ON_GPU = GOOD.model_copy(update={"device": "gpu"})


@pytest.mark.parametrize(
    ("rules", "alone"),
    [
        pytest.param([(FAST, False), (GOOD, True)], True, id="too slow here: yes"),
        pytest.param([(GOOD_ON_GPU, False)], True, id="no GPU here: yes"),
        pytest.param([(GOOD, False), (FAST, True)], False, id="too little learned: no"),
        pytest.param(
            [(GOOD, False), (FAST, False)], False, id="both, so that a faster machine would refuse as well: no"
        ),
        pytest.param([(FAST, True)], False, id="blessed: no"),
        pytest.param([], False, id="no rules: no"),
    ],
)
def test_a_refusal_that_another_machine_might_not_repeat_is_told_apart(
    rules: list[tuple[Rule, bool]], alone: bool
) -> None:
    answers = [say(rule, passed) for rule, passed in rules]
    none = RuleOutcome(name="at least one", metric="gate", kind="quality", answer="failed", value=0, bound="≥ 1",
                       passed=False, why="")  # fmt: skip
    verdict = Verdict(blessed=False, quality=False, serving=False, champion=None, rules=answers or [none])
    assert refused_by_machine_alone([rule for rule, _ in rules], verdict) is alone
