"""The kinds of problem that members are trained for, one file each; README.md tells how to add one."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.errors import ConfigError
from fuseline.records import Decoding
from fuseline.tasks.base import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.multilabel import MultiLabel
from fuseline.tasks.ner import Ner

KINDS = ("classification", "multilabel", "ner")


def build_task(kind: str, labels: Sequence[str], scheme: str | None = None, decoding: Decoding | None = None) -> Task:
    """Return a problem that members can be trained for.

    Args:
        kind, labels, scheme: as params.yaml has them.
        decoding: what a system that solves it has learned of how to answer.

    Raises:
        ConfigError: the kind is none of KINDS.
    """
    if kind not in KINDS:
        raise ConfigError(
            f"task.kind: members are trained for {', '.join(KINDS)}; data for {kind} can be taken in, validated and "
            "split"
        )
    if kind == "ner":
        assert scheme is not None
        task: Task = Ner(labels, scheme)
    else:
        task = MultiLabel(labels) if kind == "multilabel" else Classification(labels)
    return task if decoding is None else task.decided(decoding)
