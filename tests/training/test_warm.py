"""Training goes on from the champion's member where it fits; where not, it begins anew and says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fuseline.config import Encoders, Params, WarmStart
from fuseline.errors import ModelError
from fuseline.models.member import FusionModel
from fuseline.records import Start, sha256_of
from fuseline.tasks.classification import Classification
from fuseline.tasks.ner import Ner
from fuseline.training.pretrained import build_member
from fuseline.training.warm import begin, find_misfit, find_other, take_over
from tests.conftest import liven

Recipe, Build = Callable[..., Any], Callable[..., FusionModel]
WANTED = WarmStart(replay=0.5)


def with_labels(recipe: Any, encoders: Encoders, labels: list[str], seed: int) -> FusionModel:
    return build_member(recipe, encoders, Classification(labels), seed)


@pytest.fixture
def champion(build: Build, expert: Recipe) -> FusionModel:
    """The champion's member on texts, of the labels red, green and blue."""
    return liven(build(expert("text"), 1), 1)


@pytest.fixture
def params(encoders: Encoders) -> Params:
    """The settings of the champion, and of the training that goes on from it."""
    found = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    return Params.model_validate(found | {"encoders": encoders.model_dump()})


@pytest.fixture
def start(champion: FusionModel, params: Params, tmp_path: Path) -> Path:
    """The folder of a champion with one member, its record beside it."""
    folder = tmp_path / "start"
    champion.save_pretrained(folder / "experts/text")
    files = {str(path.relative_to(folder)): sha256_of(path) for path in (folder / "experts/text").iterdir()}
    known, settings = ["shard-00000-a.parquet"], params.model_dump(mode="json", include={"prepare", "encoders"})
    Start(version="v1.0.0", known=known, files=files, **settings).write(tmp_path / "start.json")
    return folder


def test_weights_are_those_of_the_champion_s_member(build: Build, expert: Recipe, start: Path, params: Params) -> None:
    model = build(expert("text"), 5)
    beginning = begin(model, WANTED, params, start, "experts/text")
    assert beginning is not None
    assert (beginning.version, beginning.replay) == ("v1.0.0", 0.5)
    assert beginning.known == {"shard-00000-a.parquet"}
    theirs = FusionModel.from_pretrained(start / "experts/text").state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in model.state_dict().items())


def test_scores_of_steps_between_tags_that_both_know_are_kept(expert: Recipe, encoders: Encoders) -> None:
    recipe = expert("text").model_copy(update={"loss": "crf"})
    champion, model = (build_member(recipe, encoders, Ner(labels, "bio"), 1) for labels in (["a", "b"], ["c", "b"]))
    assert champion.crf is not None
    assert model.crf is not None
    torch.nn.init.normal_(champion.crf.steps_CC)
    torch.nn.init.normal_(champion.crf.end_C)
    assert take_over(model, champion) == ["B-c", "I-c"]
    both, theirs = [0, 3, 4], [0, 3, 4]  # O, B-b and I-b
    assert torch.equal(model.crf.steps_CC[both][:, both], champion.crf.steps_CC[theirs][:, theirs])
    assert torch.equal(model.crf.end_C[both], champion.crf.end_C[theirs])
    assert not model.crf.steps_CC[1:3].any()
    assert (
        find_misfit(model, build_member(expert("text"), encoders, Ner(["a"], "bio"), 1))
        == "has another loss, of which only one is crf"
    )


def test_a_label_keeps_its_row_of_the_head_a_new_one_gets_a_fresh_one_and_a_lost_one_goes(
    champion: FusionModel, expert: Recipe, encoders: Encoders
) -> None:
    assert champion.config.labels == ["red", "green", "blue"]
    model = with_labels(expert("text"), encoders, ["blue", "violet", "red"], 5)
    fresh = {name: tensor.clone() for name, tensor in model.head.state_dict().items()}
    assert take_over(model, champion) == ["violet"]
    for name, tensor in model.head.state_dict().items():
        theirs = champion.head.state_dict()[name]
        assert torch.equal(tensor[0], theirs[2])
        assert torch.equal(tensor[1], fresh[name][1])
        assert torch.equal(tensor[2], theirs[0])
    encoder = champion.encoders["text"].state_dict()
    assert all(torch.equal(tensor, encoder[name]) for name, tensor in model.encoders["text"].state_dict().items())


@pytest.mark.parametrize(
    ("kind", "changes", "side", "why"),
    [
        pytest.param("expert", {"modality": "image"}, 32, "has other modalities", id="of another modality"),
        pytest.param("fusion", {"fusion": "gated"}, 32, "has other fusion", id="fused in another way"),
        pytest.param("fusion", {"hidden": 7}, 32, "has other hidden", id="of another width"),
        pytest.param("fusion", {}, 24, "has another image encoder", id="of another picture size"),
        pytest.param("fusion", {"layout": True}, 32, "has another text encoder", id="without places of words"),
        pytest.param("fusion", {"dropout": 0.5, "modality_dropout": 0.2}, 32, None, id="trained with other dropout"),
    ],
)  # fmt: skip
def test_a_member_does_not_fit_that_is(
    kind: str, changes: dict[str, Any], side: int, why: str | None, build: Build, expert: Recipe, fusion: Recipe
) -> None:
    make = {"expert": expert, "fusion": fusion}[kind]
    assert find_misfit(build(make(**changes), side=side), build(make())) == why


def test_a_member_that_was_saved_fits_what_it_was(
    build: Build, expert: Recipe, start: Path, encoders: Encoders
) -> None:
    assert find_misfit(build(expert("text")), FusionModel.from_pretrained(start / "experts/text")) is None


def test_what_is_not_asked_for_is_not_begun(build: Build, expert: Recipe, start: Path, params: Params) -> None:
    model = build(expert("text"), 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert begin(model, None, params, start, "experts/text") is None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("record", "place", "why"),
    [
        pytest.param({"version": None}, "experts/text", "there was no champion", id="there is no champion"),
        pytest.param({}, "experts/words", "champion v1.0.0 has no member words", id="the champion has no such member"),
    ],
)
def test_it_trains_anew_and_says_why_where(
    record: dict[str, Any], place: str, why: str, build: Build, expert: Recipe, start: Path, params: Params
) -> None:
    path = start.with_suffix(".json")
    Start.read(path).model_copy(update=record).write(path)
    model = build(expert("text"), 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    beginning = begin(model, WANTED, params, start, place)
    assert beginning is not None
    assert beginning.version is None
    assert why in beginning.why
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("break_it", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_files_other_than_the_recorded_ones_are_refused(
    break_it: Callable[[Path], Any], build: Build, expert: Recipe, start: Path, params: Params
) -> None:
    break_it(start / "experts/text/model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: not the file .* champion v1\.0\.0.*dvc pull start\.dvc"):
        begin(build(expert("text")), WANTED, params, start, "experts/text")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"prepare": {"salt": "other"}}, "dealt to the splits by another `prepare`", id="dealt otherwise"),
        pytest.param({"encoders": {"text": {"revision": "0" * 64}}}, "has another text encoder", id="other weights"),
    ],
)
def test_a_champion_of_other_rows_or_weights_is_not_gone_on_from(
    changed: dict[str, Any], why: str, build: Build, expert: Recipe, start: Path, params: Params
) -> None:
    for section, keys in changed.items():
        old = getattr(params, section)
        nested = {
            key: getattr(old, key).model_copy(update=value) if isinstance(value, dict) else value
            for key, value in keys.items()
        }
        params = params.model_copy(update={section: old.model_copy(update=nested)})
    model, fresh = build(expert("text"), 5), build(expert("text"), 5)
    beginning = begin(model, WANTED, params, start, "experts/text")
    assert beginning is not None
    assert beginning.version is None
    assert why in beginning.why
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


def test_a_champion_from_before_a_key_is_gone_on_from_with_what_it_meant(start: Path, params: Params) -> None:
    found = Start.read(start.with_name("start.json"))
    assert found.encoders["image"].pop("several") is False
    assert find_other(found, params, ["text", "image"]) is None
    several = params.encoders.image.model_copy(update={"several": True})
    params = params.model_copy(update={"encoders": params.encoders.model_copy(update={"image": several})})
    assert find_other(found, params, ["text", "image"]) == "has another image encoder"
