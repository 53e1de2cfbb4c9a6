"""What is tried: dotted keys of params.yaml, and the values that each may take."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna

from fuseline import config
from fuseline.config import Choices, Fusion, Params, Range, Search
from fuseline.errors import ConfigError


def check_space(space: Path, path: Path, document: Mapping[str, Any], params: Params, wanted: Search) -> None:
    """Refuse keys that are not there or change nothing of the member, and ends of ranges that do not fit.

    Raises:
        ConfigError: naming the key, and what to do.
    """
    if wanted.member not in params.members.all():
        raise ConfigError(f"{space}: member: {wanted.member!r} is none of {', '.join(params.members.all())}")
    if params.members.all()[wanted.member].soup is not None:
        raise ConfigError(
            f"{space}: member: {wanted.member} is a soup of trainings, and a search tries single ones; set its soup to "
            "null for as long as it takes"
        )
    own = f"members.{params.members.kind(wanted.member)}.{wanted.member}."
    for key, entry in wanted.space.items():
        if not key.startswith((own, "encoders.")):
            raise ConfigError(
                f"{space}: space.{key}: no number of {wanted.member}'s training; expected a key below {own[:-1]} or "
                "encoders"
            )
        if key.startswith(f"{own}soup"):
            raise ConfigError(f"{space}: space.{key}: a search tries single trainings; take it out")
        if key.startswith("encoders.") and (why := _find_idle(key.split(".")[1], params, wanted.member)):
            raise ConfigError(f"{space}: space.{key}: {why}")
        try:
            get(document, key)
        except KeyError:
            raise ConfigError(f"{space}: space.{key}: params.yaml has no such key; put it there first") from None
        for value in entry.choices if isinstance(entry, Choices) else (entry.low, entry.high):
            try:
                config.check(path, put(document, {key: value}))
            except ConfigError as error:
                raise ConfigError(f"{space}: space.{key}: {value!r} does not fit: {error}") from error


def _find_idle(modality: str, params: Params, member: str) -> str | None:
    """Say why another encoder of a modality would not be tried; None if it would."""
    recipe = params.members.all()[member]
    if modality not in recipe.modalities:
        return f"{member} has no {modality} encoder; expected one of {', '.join(recipe.modalities)}"
    if isinstance(recipe, Fusion) and modality in recipe.start:
        expert = recipe.start[modality]
        return (
            f"{member} starts from the encoder of {expert}, which was trained as params.yaml has it; search with "
            f"member: {expert}, or take {modality} out of members.fusions.{member}.start"
        )
    if params.pretrain is not None:
        return "encoders were pre-trained as params.yaml has them; set pretrain to null"
    return None


def put(document: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the document with other values at dotted keys, each of which it has."""
    changed = copy.deepcopy(dict(document))
    for key, value in values.items():
        *parents, last = key.split(".")
        node = changed
        for parent in parents:
            node = node[parent]
        node[last] = value
    return changed


def get(document: Mapping[str, Any], key: str) -> Any:
    """Return what stands at a dotted key.

    Raises:
        KeyError: the document has no such key.
    """
    node: Any = document
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            raise KeyError(key)
        node = node[name]
    return node


def nest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into an overlay of params.yaml."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, last = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return nested


def find_present(wanted: Search, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what params.yaml has, as Optuna takes it; None where a value is outside of its range or choices."""
    found: dict[str, Any] = {}
    for key, entry in wanted.space.items():
        value = get(document, key)
        if isinstance(entry, Choices):
            if value not in entry.choices:
                return None
            found[key] = json.dumps(value)
        elif isinstance(value, int | float) and entry.low <= value <= entry.high and type(value) in (int, entry.kind):
            found[key] = entry.kind(value)
        else:
            return None
    return found


def suggest(trial: optuna.Trial, key: str, entry: Range | Choices) -> Any:
    """Draw a value for a key."""
    if isinstance(entry, Choices):  # Optuna stores names and numbers only
        return json.loads(trial.suggest_categorical(key, [json.dumps(choice) for choice in entry.choices]))
    if entry.kind is int:
        return trial.suggest_int(key, int(entry.low), int(entry.high), log=entry.log)
    return trial.suggest_float(key, entry.low, entry.high, log=entry.log)
