"""What dvc.lock says that a model was made with."""

from fuseline.lineage.revisions import params_of


def stage(**params: object) -> dict[str, object]:
    return {"params": {"params.yaml": params}}


def test_params_have_dotted_keys_and_lists_are_values():
    lock = {"combine": stage(combine={"pool": "mean", "weights": {"pull": 0.1}, "stack": None}), "validate": {}}
    assert params_of(lock) == {"combine.pool": "mean", "combine.weights.pull": 0.1, "combine.stack": None}


def test_a_member_that_is_gone_but_still_recorded_is_none_of_the_params():
    lock = {
        "evaluate": stage(members={"experts": {"text": {"epochs": 3}}}, train={"seed": 1}),
        "train@text": stage(**{"members.experts.text": {"epochs": 2}, "train": {"seed": 1}}),
        "train@gone": stage(**{"members.experts.gone": {"epochs": 9}, "train": {"seed": 0}}),
    }
    assert params_of(lock) == {"members.experts.text.epochs": 3, "train.seed": 1}


def test_without_params_there_is_none():
    assert params_of({}) is None
    assert params_of({"validate": {"cmd": "true"}}) is None
