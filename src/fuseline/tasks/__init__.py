"""The kinds of problem that members are trained for, one file each; README.md tells how to add one."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.errors import ConfigError
from fuseline.records import Transitions
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.ner import Ner

KINDS = ("classification", "ner")


def build_task(
    kind: str, labels: Sequence[str], scheme: str | None = None, transitions: Transitions | None = None
) -> Task:
    """Return a problem that members can be trained for.

    Args:
        kind, labels, scheme: as params.yaml has them.
        transitions: scores of steps from tag to tag, for ner.

    Raises:
        ConfigError: the kind is none of KINDS.
    """
    if kind == "ner":
        assert scheme is not None
        return Ner(labels, scheme, transitions)
    if kind == "classification":
        return Classification(labels)
    raise ConfigError(
        f"task.kind: members are trained for {' and '.join(KINDS)}; data for {kind} can be taken in, validated and "
        "split"
    )
