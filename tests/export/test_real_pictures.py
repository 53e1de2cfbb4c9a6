"""Pictures of the embedded set, raw into the graph, are what members were trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pyarrow.parquet as pq
import pytest
import torch
from torch.export import Dim
from torchvision.transforms.v2 import functional as tv

from fuseline.inputs.image import decode_image
from fuseline.models.ensemble import Ensemble
from fuseline.models.preprocess import Preprocess
from fuseline.runtime import Predictor, Row
from fuseline.training.modalities.image import to_square

REMOTE = Path(__file__).parents[2] / "embedded" / "remote"
CPU = ["CPUExecutionProvider"]
VIEWS: dict[str, tuple[int, int | None, str]] = {
    "squeezed to 40": (40, None, "bilinear"),
    "squeezed to 224, larger than they are": (224, None, "bilinear"),
    "the middle 48 of 64": (48, 64, "bilinear"),
    "the middle 56 of 64, bicubic": (56, 64, "bicubic"),
}
"""Side, shorter and kernel."""


@pytest.fixture(scope="module")
def pictures() -> list[bytes]:
    """Give 60 pictures, every third cut to a shape that is no square: the set's own are."""
    files = (path for path in REMOTE.rglob("*") if path.is_file() and path.read_bytes()[:4] == b"PAR1")
    shard = next(path for path in files if "image" in pq.read_schema(path).names)
    rows = pq.read_table(shard, columns=["image"])["image"].to_pylist()
    return [row["bytes"] for row in rows if row is not None][::20][:60]


def cut(pixels: np.ndarray[Any, Any], number: int) -> np.ndarray[Any, Any]:
    """Cut every third picture: one is wide, one high."""
    return pixels[: len(pixels) * 2 // 3] if number % 6 == 0 else pixels[:, 5:] if number % 6 == 3 else pixels


@pytest.fixture(scope="module", params=VIEWS)
def graph(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a view, and the graph of it alone, its pixels not normalised."""
    side, shorter, kernel = VIEWS[request.param]
    path = tmp_path_factory.mktemp("graph") / "view.onnx"
    traced = torch.zeros(1, 80, 90, 3, dtype=torch.uint8)
    sizes = ({1: Dim("height", min=1), 2: Dim("width", min=1)},)
    view = Preprocess(side, [0.0] * 3, [1 / 255] * 3, shorter, kernel).eval()
    torch.onnx.export(view, (traced,), path, dynamo=True, dynamic_shapes=sizes, opset_version=20, verbose=False)
    return VIEWS[request.param], ort.InferenceSession(str(path), providers=CPU)


def test_resizing_in_the_graph_is_within_a_hundredth_of_a_level_of_torchvisions(
    graph: Any, pictures: list[bytes]
) -> None:
    (side, shorter, kernel), session = graph
    way = {"bilinear": tv.InterpolationMode.BILINEAR, "bicubic": tv.InterpolationMode.BICUBIC}[kernel]
    worst = 0.0
    for number, data in enumerate(pictures):
        pixels = cut(decode_image(data), number).copy()
        height, width = pixels.shape[:2]
        size = [length * shorter // min(height, width) for length in (height, width)] if shorter else [side, side]
        floats = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
        top, left = ((length - side) // 2 for length in size)
        resized = tv.resize(floats, size, way, antialias=True).clamp(0, 255)
        expected = tv.crop(resized, top, left, side, side)
        (found,) = session.run(None, {session.get_inputs()[0].name: pixels[None]})
        worst = max(worst, float(np.abs(found - expected.numpy()).max()))
    assert len(pictures) == 60
    assert worst <= 0.01


def test_pixels_are_within_one_grey_level_of_those_that_were_trained_on(graph: Any, pictures: list[bytes]) -> None:
    (side, shorter, kernel), session = graph
    for data in pictures:
        kept = to_square(data, shorter or side, shorter, kernel)
        start = ((shorter or side) - side) // 2
        expected = kept[start : start + side, start : start + side].astype(np.float32)
        (found,) = session.run(None, {session.get_inputs()[0].name: decode_image(data)[None]})
        assert np.abs(found[0].transpose(1, 2, 0) - expected).max() <= 1.0


def test_a_bundle_answers_raw_pictures_as_the_ensemble_answers_what_it_was_trained_on(
    bundle: Path, ensemble: Ensemble, pictures: list[bytes]
) -> None:
    answered = Predictor(bundle, CPU, 1).predict_proba([Row(None, data) for data in pictures]).argmax(1)
    squares = torch.from_numpy(np.stack([to_square(data, 32) for data in pictures]))
    count = len(pictures)
    nothing = {"input_ids": torch.zeros(count, 1, dtype=torch.int64), "attention_mask": torch.zeros(count, 1).long(),
               "has_text": torch.zeros(count, dtype=torch.bool)}  # fmt: skip
    with torch.inference_mode():
        probs = ensemble(**nothing, pixels=squares, has_image=torch.ones(count, dtype=torch.bool))[0]
    np.testing.assert_array_equal(answered, probs.numpy().argmax(1))
