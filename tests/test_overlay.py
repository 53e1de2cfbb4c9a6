"""An overlay sets keys of params.yaml, takes some out, and breaks nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fuseline import config
from fuseline.errors import ConfigError
from fuseline.overlay import lay

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    path = tmp_path / "params.yaml"
    path.write_text(PARAMS.read_text())
    return path


def put(params: Path, text: str) -> Path:
    overlay = params.with_name("overlay.yaml")
    overlay.write_text(text)
    return overlay


def test_keys_are_set_and_all_others_stay(params: Path) -> None:
    before = yaml.safe_load(params.read_text())
    assert lay(params, put(params, "validate:\n  max_missing: {text: 0.5}\n")) == [["validate.max_missing.text"]]
    before["validate"]["max_missing"]["text"] = 0.5
    assert yaml.safe_load(params.read_text()) == before
    assert params.read_text().startswith(PARAMS.read_text().splitlines()[0])


def test_an_overlay_of_what_stands_there_changes_not_a_letter(params: Path) -> None:
    assert lay(params, put(params, "prepare: {freeze_test: null, val: 0.15}\n")) == [[]]
    assert params.read_text() == PARAMS.read_text()


def test_a_key_can_be_taken_out_and_a_list_is_replaced(params: Path) -> None:
    fusions = "{fusion: !remove , all-words: !remove }"
    text = f"task: {{labels: [a, b]}}\nmembers:\n  experts: {{image: !remove }}\n  fusions: {fusions}\n"
    assert len(lay(params, put(params, text))[0]) == 4
    assert lay(params, put(params, text)) == [[]]
    found = config.load(params)
    assert (found.task.labels, list(found.members.experts), found.members.fusions) == (["a", "b"], ["text"], {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("task: {labls: []}", "task.labls: unknown key"),
        ("members: {experts: {image: !remove }}", "there is no expert on image"),
        ("- task", "expected keys of params.yaml"),
        ("task: [", "not valid YAML"),
    ],
)
def test_what_would_not_be_sound_is_refused_and_nothing_written(params: Path, text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        lay(params, put(params, text))
    assert params.read_text() == PARAMS.read_text()


def test_an_overlay_that_is_not_there_is_named(params: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        lay(params, params.with_name("nothing.yaml"))


def test_of_several_overlays_all_are_laid_or_none(params: Path) -> None:
    sound, unsound = params.with_name("sound.yaml"), params.with_name("unsound.yaml")
    sound.write_text("prepare: {val: 0.11}\n")
    unsound.write_text("prepare: {tset: 0.3}\n")
    with pytest.raises(ConfigError, match=r"sound\.yaml, .*unsound\.yaml laid over it, nothing (?s:.*tset)"):
        lay(params, sound, unsound)
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        lay(params, sound, params.with_name("nothing.yaml"))
    assert params.read_text() == PARAMS.read_text()
    unsound.write_text("prepare: {val: 0.12, test: 0.3}\n")
    assert lay(params, sound, unsound) == [["prepare.val"], ["prepare.val", "prepare.test"]]
    assert config.load(params).prepare.val == 0.12
