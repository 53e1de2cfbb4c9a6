"""Judge a run: its evidence and, on the same test rows, the champion's own bundle."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fuseline.config import Evaluate, Params, Rule, load
from fuseline.data.drift import find_drift
from fuseline.data.shards import pick_rows
from fuseline.errors import BundleError, LineageError
from fuseline.evaluation import slices
from fuseline.evaluation.against import Answered, Rows, set_against
from fuseline.evaluation.gate import judge
from fuseline.evaluation.margins import Comparison
from fuseline.evaluation.metrics import find_forgetting
from fuseline.evaluation.predictions import truth_of
from fuseline.lineage import champion, registry, start
from fuseline.lineage.dvc import data_digest
from fuseline.lineage.git import git
from fuseline.lineage.workspace import STATE, Workspace
from fuseline.progress import Progress
from fuseline.records import (
    REVIEW,
    Against,
    Benchmark,
    Bundle,
    DataManifest,
    Evaluation,
    Explanation,
    History,
    Leakage,
    Parity,
    Preparation,
    Rehearsal,
    System,
    Validation,
    Verdict,
)
from fuseline.report.page import Story, render
from fuseline.runtime.predictor import Predictor
from fuseline.runtime.rows import read_parquet

COPIED = ("evaluate/evaluation.json", "explain/explanation.json", "benchmark/benchmark.json", "export/parity.json",
          "rehearse/rehearsal.json",
          "prepare/leakage.json")  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """What the stages of one run wrote."""

    params: Params
    evaluation: Evaluation
    parity: Parity
    rehearsal: Rehearsal
    benchmark: Benchmark
    validation: Validation
    preparation: Preparation
    leakage: Leakage
    explanation: Explanation
    manifest: DataManifest
    histories: dict[str, History]

    @classmethod
    def read(cls, clone: Path) -> Evidence:
        """Read params.yaml and build/ of a run's clone."""
        build = clone / "build"
        histories = {path.parent.name: History.read(path) for path in sorted(build.glob("*/*/*/history.json"))}
        return cls(
            load(clone / "params.yaml"),
            Evaluation.read(build / "evaluate" / "evaluation.json"),
            Parity.read(build / "export" / "parity.json"),
            Rehearsal.read(build / "rehearse" / "rehearsal.json"),
            Benchmark.read(build / "benchmark" / "benchmark.json"),
            Validation.read(build / "validate" / "validation.json"),
            Preparation.read(build / "prepare" / "preparation.json"),
            Leakage.read(build / "prepare" / "leakage.json"),
            Explanation.read(build / "explain" / "explanation.json"),
            DataManifest.read(clone / "data" / "manifest.json"),
            histories,
        )

    def verdict(self, comparison: Comparison | None, drift: Mapping[str, float]) -> Verdict:
        """Hold the gate's rules against the evidence.

        Args:
            drift: of the data set from the champion's.
        """
        documents = {
            "evaluation": self.evaluation.model_dump(),
            "drift": drift,
            "export": self.parity.model_dump(),
            "rehearse": self.rehearsal.model_dump(),
            "benchmark": self.benchmark.model_dump(),
        }
        return judge(self.params.gate, documents, comparison, self.params.publish.accept_incomparable)


@dataclass(frozen=True)
class Judgement:
    """What a run came to, before anything is published."""

    name: str
    verdict: Verdict
    evaluation: Evaluation
    system: System
    """What of the evaluation the bundle holds."""
    version: str | None
    """The version that the bundle is to get, None if it was refused."""
    by_machine_alone: bool
    """Whether every rule that refused it counts what this machine measured."""
    against: Against | None
    """None where there is no champion that can be asked the same."""


def judge_run(workspace: Workspace) -> Judgement:
    """Score the champion again on today's test rows, answer the gate's rules, write the evidence."""
    clone, evidence = workspace.clone, Evidence.read(workspace.clone)
    name = evidence.params.publish.name
    fetched, comparison, drift = fetch_champion(workspace, name), None, {}
    if fetched is not None:
        version, bundle = fetched
        known = start.known_shards(clone, version, f"{name}@{version}")
        comparison = compare(version, bundle, clone, evidence.params.evaluate, known)
        drift = find_drift(clone / "data", known)
    verdict = evidence.verdict(comparison, drift)
    planned = registry.next_version(workspace.repo, name) if verdict.blessed else None
    lineage = {"data": data_digest(clone), "commit": workspace.commit, "branch": workspace.branch}
    write_evidence(workspace, evidence, verdict, planned, lineage, comparison)
    by_machine = refused_by_machine_alone(evidence.params.gate, verdict)
    against = comparison.against if comparison else None
    return Judgement(name, verdict, evidence.evaluation, evidence.benchmark.system, planned, by_machine, against)


def refused_by_machine_alone(rules: Sequence[Rule], verdict: Verdict) -> bool:
    """Tell whether nothing but this machine's speed or lack of a GPU refused: no verdict on data, params and code."""
    answered = zip(rules, verdict.rules, strict=False)
    by_machine = [
        rule for rule, outcome in answered
        if not outcome.passed and (rule.metric.startswith("benchmark.") or rule.device == "gpu")
    ]  # fmt: skip
    return bool(by_machine) and len(by_machine) == sum(not outcome.passed for outcome in verdict.rules)


def fetch_champion(workspace: Workspace, name: str) -> tuple[str, Path] | None:
    """Fetch the bundle of today's champion into the run's clone, unless it is there: its version and folder.

    Raises:
        LineageError: the DVC remote does not hold it, so that no run could be compared with it.
        BundleError: it was altered, or a newer Fuseline wrote it.
    """
    now = registry.champion(workspace.repo, name)
    if now is None:
        return None
    folder = workspace.clone / STATE / "champion" / now.version
    if not folder.exists():
        git(workspace.clone, "fetch", "--quiet", "--tags", "origin")  # it may have been published meanwhile
        try:
            champion.fetch(workspace.clone, now.tag, folder)
        except LineageError as error:
            raise LineageError(
                f"champion {now.version} cannot be fetched, and without it no run can be compared with it: point DVC "
                "at the remote that holds it (`dvc remote modify --local artifacts url …`), or delete the tags "
                f"{name}@… and {name}#… to begin anew. ({error})"
            ) from error
        except BundleError as error:
            raise BundleError(
                f"champion {now.version} was fetched, but cannot be used, so that no run can be compared with it: "
                f"{error}. If that does not help, make another version champion (`fuseline promote …`), or delete the "
                f"tags {name}@… and {name}#… to begin anew"
            ) from error
    return now.version, folder


def compare(version: str, bundle: Path, clone: Path, settings: Evaluate, known: Sequence[str] = ()) -> Comparison:
    """Score a champion's bundle again, on the run's test rows, beside the run's own bundle: both as they are served.

    Args:
        known: shards that the champion's data set held too.
    """
    theirs = Predictor(bundle)
    ours = Predictor(clone / "build" / "export" / "bundle", public_key=None)  # it is signed when it is published

    if why_not := find_difference(theirs.bundle, ours.bundle) or find_other_words(theirs, ours):
        return Comparison(version, None, why_not)
    table = pq.read_table(clone / "build" / "evaluate" / "predictions.parquet")
    test = clone / "build" / "prepare" / "test"
    after_UC = answer(ours, test, table.num_rows, "challenger")
    before_UC = answer(theirs, test, table.num_rows, f"champion {version}")
    than, before_UC = ours.task.adopt(theirs.task, before_UC)
    texts = table["text"].to_pylist() if ours.task.words else [None] * table.num_rows
    truth = truth_of(table, ours.task)
    before, after = Answered.of(than, before_UC, truth), Answered.of(ours.task, after_UC, truth)
    old_N = np.isin(table["shard"].to_pylist(), list(known))
    forgetting = find_forgetting(version, before.scored, after.scored, old_N)
    rows = Rows(table["id"].to_pylist(), np.array(table["group"].to_pylist()), texts, slices.read(table))
    against = set_against(version, before, after, rows, settings.resamples, settings.confidence)
    return Comparison(version, against, find_other(theirs.bundle, ours.bundle, "labels") or "", forgetting)


def find_difference(theirs: Bundle, ours: Bundle) -> str | None:
    """Say why two bundles cannot be asked the same, None if they can; the order of modalities is no reason."""
    for what in ("task", "scheme"):
        if (one := getattr(theirs, what)) != (other := getattr(ours, what)):
            return f"has another {what} ({one}, not {other})"
    return find_other(theirs, ours, "modalities")


def find_other(theirs: Bundle, ours: Bundle, what: str) -> str | None:
    """Say so if two bundles have other labels or modalities, in whatever order; None if they have the same."""
    differing = set(getattr(theirs, what)) ^ set(getattr(ours, what))
    return f"has other {what} (the two differ in {', '.join(sorted(differing))})" if differing else None


def find_other_words(theirs: Predictor, ours: Predictor) -> str | None:
    """Say so if two bundles cut texts into other words; None if they do not."""
    cut = [getattr(predictor.readers.get("text"), "pattern", None) for predictor in (theirs, ours)]
    return None if cut[0] == cut[1] else "cuts texts into other words"


def answer(predictor: Predictor, test: Path, rows: int, who: str) -> NDArray[np.float32]:
    """Return a bundle's probabilities [U, C] for the units of the test rows that it sees anything of.

    Args:
        rows: how many these are.
    """
    progress, probs = Progress(f"judge: {who}", rows), []
    modalities = predictor.bundle.modalities
    asked = read_parquet(test, modalities, predictor.task.wanted(modalities), predictor.several)
    for done, answered in enumerate(predictor.answer(asked), start=1):
        probs.append(np.atleast_2d(answered.probabilities))
        progress.at(done)
    assert len(probs) == rows
    return np.concatenate(probs)


def write_evidence(
    workspace: Workspace, evidence: Evidence, verdict: Verdict, version: str | None, lineage: dict[str, str],
    comparison: Comparison | None,
) -> None:  # fmt: skip
    """Write the records that the verdict goes by, verdict, against and forgetting .json, and report.html.

    Args:
        version: what the bundle will be registered as, None if it was refused.
        comparison: None where there is no champion; the last two are of it.
    """
    folder, clone = workspace.evidence, workspace.clone
    folder.mkdir(parents=True, exist_ok=True)
    verdict.write(folder / "verdict.json")
    forgetting, against = (comparison.forgetting, comparison.against) if comparison else (None, None)
    if forgetting is not None:
        forgetting.write(folder / "forgetting.json")
    if against is not None:
        against.write(folder / "against.json")
    for name in COPIED:
        shutil.copy(clone / "build" / name, folder)
    review = clone / "build" / "explain" / REVIEW
    if review.is_dir():  # DVC brings no empty folder back
        shutil.copytree(review, folder / REVIEW, dirs_exist_ok=True)
    named = {error.id for error in evidence.explanation.errors}
    if against is not None:
        named |= {flip.id for flips in (against.better, against.worse) for flip in flips.shown}
    rows = {row["id"]: row for row in pick_rows(clone / "build" / "prepare" / "test", sorted(named))}
    story = Story(
        name=evidence.params.publish.name, version=version, run=workspace.run,
        created=datetime.now(UTC).isoformat(timespec="seconds"), verdict=verdict,
        evaluation=evidence.evaluation, benchmark=evidence.benchmark, parity=evidence.parity,
        rehearsal=evidence.rehearsal,
        validation=evidence.validation, preparation=evidence.preparation, leakage=evidence.leakage,
        manifest=evidence.manifest, forgetting=forgetting, against=against, explanation=evidence.explanation, rows=rows,
        origins={name: h.origin for name, h in evidence.histories.items() if h.origin is not None},
        histories={name: [epoch.model_dump() for epoch in h.epochs] for name, h in evidence.histories.items()},
        lineage=lineage | environment(clone) | {"onnxruntime": evidence.benchmark.onnxruntime},
    )  # fmt: skip
    (folder / "report.html").write_text(render(story), encoding="utf-8")


def environment(clone: Path) -> dict[str, str]:
    """Say what, besides data and code, the result depends on."""
    digests = {
        name: hashlib.sha256((clone / name).read_bytes()).hexdigest()[:12]
        for name in ("params.yaml", "requirements.lock")
    }
    packages = {name: metadata.version(name) for name in ("torch", "torchvision", "transformers")}
    return digests | {"python": platform.python_version(), "platform": platform.platform()} | packages
