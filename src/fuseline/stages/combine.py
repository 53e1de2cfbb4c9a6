"""Fit the ensemble on validation: weights of the members, then a temperature."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fuseline.config import Expert, Member, Params
from fuseline.models.combine import Combiner, patterns_of
from fuseline.progress import say
from fuseline.records import Combination, Stack
from fuseline.stages import entry
from fuseline.tasks.ner import Ner
from fuseline.training.combine import (
    Said,
    choose_stack,
    choose_weights,
    fit_decoding,
    fit_temperature,
    pool_transitions,
    read_learned,
    read_validation,
    weigh_by_pattern,
)


def main(params: Params) -> None:
    """build/prepare, build/train → build/combine: combination.json."""
    members = params.members.all()
    said = read_validation(
        entry.PREPARE / "val", {name: member.modalities for name, member in members.items()},
        {name: _folder(name, member) for name, member in members.items()},
    )  # fmt: skip
    pool, how, names = params.combine.pool, params.combine, list(members)
    weights = choose_weights(said.log_probs_UMC, said.usable_UM, said.labels_U, pool, how.weights)
    table_PM = None if how.patterns is None else weigh_by_pattern(said, weights, pool, how.weights, how.patterns.pull)
    weights_M, one = torch.tensor(weights, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    given = said.log_probs_UMC, said.usable_UM, said.patterns_U
    pooled_UC = Combiner(weights_M, one, pool, table_PM)(*given)
    stack, held_out = (None, {}) if how.stack is None else choose_stack(said, pooled_UC, how.stack)
    temperature = fit_temperature(pooled_UC, said.labels_U)  # stacking, fitted on these rows, would seem too sure
    logits_UC = Combiner(weights_M, temperature * one, pool, table_PM, stack)(*given)
    decide, task = partial(fit_decoding, params.task, said), entry.task_of(params)
    learned = {name: read_learned(_folder(name, member)) for name, member in members.items()}
    plain = task.transitions if isinstance(task, Ner) else None
    transitions = None if plain is None else pool_transitions(list(learned.values()), plain, weights, temperature)
    combination = Combination(
        weights=dict(zip(names, weights, strict=True)),
        temperature=temperature,
        pool=pool,
        modalities=said.modalities,
        patterns={} if table_PM is None else name_patterns(said, table_PM, names),
        stack=None if stack is None else Stack(weights=stack[0].tolist(), bias=stack[1].tolist()),
        held_out=held_out,
        decoding=decide(logits_UC.softmax(1), said.usable_UM.any(1), transitions),
        decodings={
            name: decide(said.log_probs_UMC[:, at].exp(), said.usable_UM[:, at], learned[name])
            for at, name in enumerate(names)
        },
    )
    combination.write(entry.fresh(entry.COMBINE) / "combination.json")
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in combination.weights.items())
    say(f"combine: {shares}, temperature {combination.temperature:.2f}")
    if held_out:
        told = ", ".join(f"{penalty} {loss:.4f}" for penalty, loss in held_out.items())
        say(f"combine: stacking {'does not pay' if stack is None else 'pays'}; held-out log loss by penalty: {told}")


def name_patterns(said: Said, table_PM: Tensor, members: Sequence[str]) -> dict[str, dict[str, float]]:
    """Name the weights of the patterns that validation has rows of."""
    found, names = set(said.patterns_U.tolist()), patterns_of(said.modalities)
    return {
        names[number]: dict(zip(members, weights_M.tolist(), strict=True))
        for number, weights_M in enumerate(table_PM)
        if number in found
    }


def _folder(name: str, member: Member) -> Path:
    return (entry.EXPERTS if isinstance(member, Expert) else entry.FUSIONS) / name


if __name__ == "__main__":
    entry.run(main)
