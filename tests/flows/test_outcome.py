"""What a run says of itself names a way out that works."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from flows.outcome import Outcome, tell_systems, to_evidence
from fuseline.lineage.runs import Run
from fuseline.lineage.workspace import Workspace
from fuseline.records import Estimate, Evaluation, RuleOutcome, System, Verdict

SLOW = RuleOutcome(
    name="fast", metric="benchmark.batches.batch_1.p95_ms", kind="serving", answer="failed", value=3, bound="≤ 1",
    passed=False, why="3 misses ≤ 1",
)  # fmt: skip


def refuse(champion: str | None) -> Verdict:
    return Verdict(blessed=False, quality=True, serving=False, champion=champion, rules=[SLOW])


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path, "r2", "abc")


def run(outcome: str, version: str | None, why: str = "") -> Run:
    return Run(
        run="r1", started="", seconds=0, outcome=outcome, why=why, version=version, champion=None, data="d", inputs="i"
    )


@pytest.mark.parametrize(
    ("champion", "words"),
    [
        ("v1.0.0", "r1, which was published as v1.0.0. But champion/ holds nothing"),
        ("v1.1.0", "Since then v1.1.0 was made champion; `fuseline promote v1.0.0` brings v1.0.0 back."),
        (None, "There is no champion any more; `fuseline promote v1.0.0` brings v1.0.0 back."),
    ],
    ids=["still champion", "another is champion", "none is champion"],
)
def test_inputs_that_were_published_are_told_with_the_way_back_where(
    champion: str | None, words: str, workspace: Workspace
) -> None:
    assert words in Outcome.unchanged(workspace, run("published", "v1.0.0"), champion).why


def test_inputs_that_were_refused_are_told_with_the_rules_and_the_way_out(workspace: Workspace) -> None:
    before = Outcome(workspace, "d", verdict=refuse(None))
    before.refused()
    told = Outcome.unchanged(workspace, run("refused", None, before.why), None).why
    assert "which was refused. 1 rule failed: fast (3 misses ≤ 1)." in told
    assert "`make retrain ARGS=--force`" in told


def test_a_refusal_by_this_machine_alone_says_that_the_next_run_measures_again(workspace: Workspace) -> None:
    verdict = refuse("v1.0.0")
    outcome = Outcome(workspace, "d", champion="v1.0.0", verdict=verdict, by_machine_alone=True)
    outcome.refused()
    assert outcome.why.endswith(
        "Champion v1.0.0 stays. Only this machine's numbers failed: the next run measures again."
    )


@pytest.mark.parametrize("exported", ["ensemble", "student"])
def test_the_console_shows_both_systems_and_which_of_them_the_bundle_holds(
    exported: System, evaluation: Evaluation
) -> None:
    student = {"accuracy": Estimate(value=0.4, low=0.3, high=0.45)}
    both = evaluation.model_copy(update={"before": evaluation.members, "student": student})
    console = Console(record=True, width=120, file=io.StringIO())
    console.print(tell_systems(both, exported))
    lines = {line.split()[0]: line for line in console.export_text(styles=True, clear=False).splitlines() if line}
    plain = console.export_text()
    assert f"the bundle holds the {exported}" in plain
    assert "0.500" in plain
    assert "0.400  [0.300, 0.450]" in plain
    bold = [name for name in ("ensemble", "student") if any(f"\x1b[1m{name}" in line for line in lines.values())]
    assert bold == [exported]


@pytest.mark.parametrize("exported", ["ensemble", "student"])
def test_the_evidence_begins_with_what_was_published(
    exported: System, workspace: Workspace, evaluation: Evaluation
) -> None:
    metrics = {name: Estimate(value=0.4, low=0.3, high=0.45) for name in evaluation.ensemble}
    both = evaluation.model_copy(update={"before": evaluation.members, "student": metrics})
    told = to_evidence(Outcome(workspace, "d", evaluation=both, system=exported))
    first = next(line for line in told.splitlines() if line.startswith(f"| {exported}"))
    assert ("0.400" if exported == "student" else "0.500") in first
    assert told.splitlines()[0].startswith("**")
