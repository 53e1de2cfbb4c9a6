"""What a run came to, and how it is told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from fuseline.lineage.champion import installed_problem
from fuseline.lineage.runs import Run
from fuseline.lineage.workspace import Workspace
from fuseline.progress import clock
from fuseline.records import Against, Evaluation, System, Verdict
from fuseline.report import markdown, tables
from fuseline.report.tables import METRICS, tell_answer


@dataclass
class Outcome:
    """A run's result; filled in as the run goes on."""

    workspace: Workspace
    data: str
    outcome: str = "failed"
    why: str = ""
    seconds: float = 0.0
    version: str | None = None
    champion: str | None = None
    verdict: Verdict | None = None
    by_machine_alone: bool = False
    evaluation: Evaluation | None = None
    system: System = "ensemble"
    """What of the evaluation the bundle holds."""
    against: Against | None = None
    """The champion beside the challenger; None where it could not be asked the same."""
    paths: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def unchanged(cls, workspace: Workspace, judged: Run, champion: str | None) -> Outcome:
        """Say that these inputs were judged before."""
        ended = f"{judged.outcome}{f' as {judged.version}' if judged.version else ''}"
        why = (
            f"Nothing to do: data, params and code are those of run {judged.run}, which was {ended}."
            f"{_way_out(judged, champion)}"
        )
        if champion is not None and (problem := installed_problem(workspace.repo, champion)):
            why += f" But {problem}."
        return cls(workspace, judged.data, "unchanged", why, version=judged.version, champion=champion)

    def refused(self) -> None:
        """Say that the champion stays, and which rules failed."""
        assert self.verdict is not None
        failed = [f"{rule.name} ({rule.why})" for rule in self.verdict.rules if not rule.passed]
        self.outcome = "refused"
        after = f"Champion {self.champion} stays." if self.champion else "There is still no champion."
        self.why = f"{len(failed)} rule{'s' * (len(failed) > 1)} failed: {'; '.join(failed)}. {after}"
        if self.by_machine_alone:
            self.why += " Only this machine's numbers failed: the next run measures again."

    def published(self, name: str, version: str, place: Path) -> None:
        """Say that the run's bundle is the champion now."""
        assert self.verdict is not None
        self.outcome, self.version, self.champion = "published", version, version
        self.why = f"All {len(self.verdict.rules)} rules passed; {name} {version} is the champion."
        if accepted := self.verdict.accepted:
            self.why = (
                f"{name} {version} is the champion, though it cannot be compared with {accepted.champion}: "
                f"{accepted.by} accepted that ({accepted.reason})."
            )
        self.paths = {"champion": place, "report": place / "evidence" / "report.html"}


def _way_out(judged: Run, champion: str | None) -> str:
    if judged.version is None:
        return f" {judged.why} To train and judge again all the same: `make retrain ARGS=--force`."
    if judged.version == champion:
        return ""
    since = f"Since then {champion} was made champion" if champion else "There is no champion any more"
    return f" {since}; `fuseline promote {judged.version}` brings {judged.version} back."


def tell(outcome: Outcome) -> State[Outcome]:
    """Show the outcome in the terminal and as Prefect artifacts; return the state in which the run ends."""
    console = Console()
    console.width = min(console.width, 120) if console.is_terminal else 120
    console.print()
    console.print(Panel(_headline(outcome), border_style=_color(outcome), title="fuseline retrain", title_align="left"))
    if outcome.verdict is not None and outcome.evaluation is not None:
        console.print(tell_systems(outcome.evaluation, outcome.system))
        console.print(_rules(outcome.verdict))
    for name, path in outcome.paths.items():
        console.print(f"  {name:<9} {os.path.relpath(path)}", highlight=False, soft_wrap=True)
    console.print()
    create_markdown_artifact(to_markdown(outcome), key="outcome", description=outcome.why)
    if outcome.evaluation is not None:
        create_markdown_artifact(to_evidence(outcome), key="evidence", description="The report's tables")
    kept = (outcome.workspace.evidence / "report.html").resolve()  # of champion/ only the last two stay
    if "report" in outcome.paths:
        create_link_artifact(
            kept.as_uri(), key="report", link_text="report.html",
            description=f"Run {outcome.workspace.run}; browsers open files from a terminal alone: `open {kept}`",
        )  # fmt: skip
    return end(outcome)


def end(outcome: Outcome) -> State[Outcome]:
    """Return the completed state that Prefect shows: Published, Refused or Unchanged, each with its reason."""
    return Completed(name=outcome.outcome.capitalize(), message=outcome.why, data=outcome)


def _headline(outcome: Outcome) -> Text:
    text = Text()
    text.append(
        {"published": f"Published {outcome.version}", "refused": "Refused", "unchanged": "Unchanged"}.get(
            outcome.outcome, outcome.outcome.capitalize()
        ),
        style=f"bold {_color(outcome)}",
    )
    text.append(f"   {outcome.why}\n")
    text.append(f"data {outcome.data[:12]}   champion {outcome.champion or 'none'}", style="dim")
    if outcome.seconds:
        text.append(f"   took {clock(outcome.seconds)}", style="dim")
    return text


def _color(outcome: Outcome) -> str:
    return {"published": "green", "refused": "yellow", "unchanged": "cyan"}.get(outcome.outcome, "red")


def tell_systems(evaluation: Evaluation, exported: System) -> Table:
    """Show what each member and system reaches, the exported one in bold."""
    metric = evaluation.headline
    title = f"{METRICS[metric]} on {evaluation.rows:,} test rows; the bundle holds the {exported}"
    table = Table(title=title, title_justify="left", box=None, title_style="bold")
    for name, justify in (("", "left"), ("before", "right"), ("after fine-tuning", "left"), ("weight", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for name, metrics in evaluation.members.items():
        reached = metrics[metric]
        table.add_row(
            name,
            f"{evaluation.before[name][metric].value:.3f}",
            f"{reached.value:.3f} {reached.brackets('.3f')}",
            f"{evaluation.weights[name]:.2f}",
        )
    systems: list[System] = ["ensemble"] if evaluation.student is None else ["ensemble", "student"]
    for system in systems:
        reached = evaluation.of(system)[metric]
        table.add_row(
            system, "", f"{reached.value:.3f} {reached.brackets('.3f')}", "",
            style="bold" if system == exported else None,
        )  # fmt: skip
    gain = evaluation.fusion_gain[metric]
    table.add_row("fusion gain", "", f"{gain.value:+.3f} {gain.brackets('+.3f')} over {evaluation.best_single}")
    return table


def _rules(verdict: Verdict) -> Table:
    halves = (f"{name} {'good' if good else 'not good'}" for name, good in _verdicts(verdict).items())
    word = "blessed" if verdict.blessed else "refused"
    table = Table(title=f"Verdict: {word} ({', '.join(halves)})", title_justify="left", box=None, title_style="bold")
    for name in ("", "rule", "value", "bound", "why"):
        table.add_column(name, justify="right" if name == "value" else "left")
    for rule in verdict.rules:
        style = "green" if rule.passed else "bold red"
        table.add_row(
            Text(tell_answer(rule), style=style), Text(rule.name), _value(rule.value), rule.bound, Text(rule.why)
        )
    return table


def _verdicts(verdict: Verdict) -> dict[str, bool]:
    return {"quality": verdict.quality, "serving": verdict.serving}


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def to_markdown(outcome: Outcome) -> str:
    """Tell the outcome for Prefect's pages."""
    lines = [
        f"## {outcome.outcome.capitalize()}",
        "",
        outcome.why,
        "",
        f"- data `{outcome.data}`",
        f"- champion {outcome.champion or 'none'}",
        f"- evidence `{outcome.workspace.evidence}`",
    ]
    if outcome.verdict is not None:
        lines += [
            f"- {name}: {'good' if good else '**not good**'}" for name, good in _verdicts(outcome.verdict).items()
        ]
        lines += ["", markdown.table(tables.rules(outcome.verdict))]
    return "\n".join(lines)


def to_evidence(outcome: Outcome) -> str:
    """Show the report's tables on Prefect's pages."""
    assert outcome.evaluation is not None
    found, against = outcome.evaluation, outcome.against
    compared = [] if against is None else [tables.overall(against), tables.per_class(against)]
    contributions = [tables.contributions(found)] if found.contributions else []
    student = [tables.reached(found, outcome.system)] if outcome.system == "student" else []
    whole = [
        *student, tables.systems(found), *contributions, tables.fine_tuning(found), *tables.fine_tuned_parts(found)
    ]  # fmt: skip
    return markdown.list_tables([*compared, *whole, *tables.parts(found, outcome.system, against)])
