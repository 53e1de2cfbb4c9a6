"""A bundle answers rows: in order, whatever they bring, and only if nobody touched it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fuseline.errors import BundleError, DataError
from fuseline.records import BUNDLE_FORMAT
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.session import NO_GPU, can_work, describe_device, gpu_name, open_session, providers_used

CPU = ["CPUExecutionProvider"]


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return Predictor(bundle, CPU, threads=1)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_answers_keep_the_order_of_mixed_rows(predictor: Predictor, rows: list[Row], batch_size: int) -> None:
    alone = [next(predictor.answer([row])).logits for row in rows]
    together = [answer.logits for answer in predictor.answer(rows, batch_size)]
    np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-4)
    assert len({tuple(np.round(logits, 3)) for logits in alone}) == len(rows)  # so that a mix-up would show


def test_an_answer_has_probabilities_logits_and_each_members_own(predictor: Predictor, rows: list[Row]) -> None:
    for answer in predictor.answer(rows):
        assert answer.members.shape == (4, 3)
        np.testing.assert_allclose(answer.probabilities.sum(), 1, atol=1e-5)
        np.testing.assert_allclose(answer.members.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(answer.probabilities, np.exp(answer.logits) / np.exp(answer.logits).sum(), atol=1e-5)


def test_only_a_batch_of_rows_is_taken_at_a_time(predictor: Predictor) -> None:
    taken = []
    endless = (taken.append(number) or Row("sea") for number in iter(int, 1))
    answers = predictor.answer(endless, batch_size=4)
    next(answers)
    assert len(taken) == 4


def test_large_pictures_close_a_batch_early(predictor: Predictor, picture: Callable[..., bytes]) -> None:
    row, sizes = Row("sea", picture((10, 200, 30), 2500, 2000)), []

    def count(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        sizes.append(len(feeds["pixels"]))
        rows = len(feeds["pixels"])
        return [np.zeros((rows, 3)), np.zeros((rows, 3)), np.zeros((rows, 4, 3))]

    assert len(list(predictor.answer([row] * 9, batch_size=32, run=count))) == 9
    assert sizes == [4, 4, 1]


def test_no_rows_give_no_answers(predictor: Predictor) -> None:
    assert list(predictor.answer([])) == []


def test_a_row_with_nothing_is_refused(predictor: Predictor) -> None:
    with pytest.raises(BundleError, match="a row has none of text, image; expected at least one"):
        list(predictor.answer([Row("sea"), Row()]))


def test_a_picture_that_cannot_be_decoded_is_refused(predictor: Predictor) -> None:
    with pytest.raises(DataError, match="picture cannot be decoded"):
        list(predictor.answer([Row("sea", b"no picture")]))


def test_a_text_of_unknown_words_and_an_empty_one_are_answered(predictor: Predictor) -> None:
    answers = predictor.answer([Row("猫 🐈 ‮ zzz"), Row(""), Row("rose " * 5000)])
    assert all(np.isfinite(answer.logits).all() for answer in answers)


def test_a_picture_of_one_pixel_is_not_taken_for_a_missing_one(
    predictor: Predictor, picture: Callable[..., bytes]
) -> None:
    dot = Row("sea", picture((250, 250, 0), 1, 1))
    with_picture, without = (answer.logits for answer in predictor.answer([dot, Row("sea")]))
    assert np.abs(with_picture - without).max() > 1e-4


@pytest.mark.gpu
@pytest.mark.skipif(not can_work("CUDAExecutionProvider"), reason="needs an NVIDIA GPU and onnxruntime-gpu")
def test_a_gpu_runs_the_graph_and_gives_the_same_answers(predictor: Predictor, bundle: Path, rows: list[Row]) -> None:
    on_gpu = Predictor(bundle)
    assert providers_used(on_gpu.session)[0] == "CUDAExecutionProvider"
    expected = np.stack([answer.logits for answer in predictor.answer(rows)])
    np.testing.assert_allclose(np.stack([answer.logits for answer in on_gpu.answer(rows)]), expected, atol=5e-3)


def test_threads_reach_the_session(bundle: Path) -> None:
    assert Predictor(bundle, CPU, threads=1).session.get_session_options().intra_op_num_threads == 1


def test_a_provider_that_cannot_work_here_is_passed_over(bundle: Path) -> None:
    predictor = Predictor(bundle, ["NoSuchExecutionProvider", *CPU], threads=1)
    assert predictor.session.get_providers() == CPU
    assert providers_used(predictor.session) == CPU


def test_a_bundle_that_no_provider_can_run_is_refused(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"none of NoSuchExecutionProvider can work here; this machine has .*CPU"):
        Predictor(bundle, ["NoSuchExecutionProvider"])


@pytest.mark.skipif(gpu_name() is not None, reason="there is a GPU")
def test_without_a_gpu_no_nvidia_provider_can_work_and_the_device_says_so() -> None:
    assert not can_work("CUDAExecutionProvider")
    assert describe_device(CPU) == describe_device(["CUDAExecutionProvider"]) == NO_GPU == "CPU, no GPU found"


FILES = ["model.onnx", "model.onnx.data", "tokenizer.json", "README.md"]


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_refused(name: str, copy: Path) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name}: altered"):
        Predictor(copy, CPU)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name}: missing; restore the bundle"):
        Predictor(copy, CPU)


def test_a_folder_without_a_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no bundle\.json here; expected a bundle"):
        Predictor(tmp_path)


OLD = {
    "name": "tiny", "task": "classification", "labels": ["red", "green", "blue"], "modalities": ["text", "image"],
    "members": ["text"], "max_tokens": 12, "inputs": {}, "outputs": {}, "versions": {}, "data": "", "code": "",
}  # fmt: skip
"""A description as it was written before there was a format: no champion that is served may become unreadable."""


def describe(bundle: Path, **keys: object) -> None:
    """Write a bundle's description anew; its files are those of the bundle."""
    files = json.loads((bundle / "bundle.json").read_text())["files"]
    (bundle / "bundle.json").write_text(json.dumps(OLD | {"files": files} | keys))


def test_a_bundle_without_a_format_is_of_the_first(copy: Path) -> None:
    describe(copy)
    assert read_bundle(copy).format == 1


def test_keys_that_are_not_known_yet_are_passed_over(copy: Path) -> None:
    files = json.loads((copy / "bundle.json").read_text())["files"]
    describe(copy, format=1, licence="MIT", files={name: file | {"licence": "MIT"} for name, file in files.items()})
    assert read_bundle(copy).labels == ["red", "green", "blue"]


def test_a_newer_format_is_refused_whatever_else_it_holds(copy: Path) -> None:
    (copy / "bundle.json").write_text(f'{{"format": {BUNDLE_FORMAT + 1}, "classes": ["red"]}}')
    with pytest.raises(BundleError, match=r"bundle\.json: the bundle is of format .* up to \d: update Fuseline$"):
        read_bundle(copy)


def test_a_broken_description_is_refused(copy: Path) -> None:
    (copy / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match=r"not a valid BundleFormat record .* restore the bundle"):
        Predictor(copy, CPU)


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/hostname"], ids=["above", "absolute"])
def test_a_file_outside_the_bundle_is_refused(name: str, copy: Path) -> None:
    (copy.parent / "outside.txt").write_text("secret")
    document = json.loads((copy / "bundle.json").read_text())
    document["files"][name] = {"sha256": "0" * 64, "bytes": 6}
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match="lies outside the bundle"):
        read_bundle(copy)


def test_a_link_out_of_the_bundle_is_refused(copy: Path) -> None:
    (copy.parent / "outside.json").write_bytes((copy / "tokenizer.json").read_bytes())
    (copy / "tokenizer.json").unlink()
    (copy / "tokenizer.json").symlink_to(copy.parent / "outside.json")
    with pytest.raises(BundleError, match="lies outside the bundle"):
        read_bundle(copy)


def test_a_graph_that_is_no_graph_is_refused_by_name(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"model\.onnx: onnxruntime cannot load it"):
        open_session(copy / "model.onnx", CPU)
