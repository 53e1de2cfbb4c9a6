"""Rows with several pictures in training: kept, changed, mixed and encoded picture by picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from fuseline import config
from fuseline.data.shards import SCHEMA, WIDE, write_table
from fuseline.errors import DataError
from fuseline.inputs.image import ImageReader, Square, decode_image, to_square
from fuseline.tasks.classification import Classification
from fuseline.training.augment import mix_pictures
from fuseline.training.examples import Collator, Examples
from fuseline.training.features import encode
from fuseline.training.modalities.image import Image
from fuseline.training.modalities.image import to_square as keep_square
from fuseline.training.pretrained import build_member
from tests.conftest import LABELS, paint
from tests.models.test_vision import scene, to_png

COLORS = [(200, 10, 10), (10, 200, 10), (10, 10, 200), (90, 90, 90), (250, 250, 250)]
COUNTS = [2, 0, 1, 3, 1, 1]


@pytest.fixture(scope="module")
def several(encoders: config.Encoders) -> config.Encoders:
    return encoders.model_copy(update={"image": encoders.image.model_copy(update={"several": True})})


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give rows of a file with several pictures, and of one whose rows have one each."""
    folder, rows = tmp_path_factory.mktemp("several") / "train", []
    for number, count in enumerate(COUNTS):
        first, *rest = [{"bytes": paint(COLORS[at], 20 + 9 * at), "path": None} for at in range(count)] or [None]
        row = {"id": f"e{number}", "group": f"g{number}", "text": "the rose", "target": "red", "label": number % 3}
        rows.append(row | {"image": first, "more_images": rest or None})
    label = pa.field("label", pa.int64())
    write_table(pa.Table.from_pylist(rows[:4], WIDE.append(label)), folder / "shard-00000-a.parquet")
    write_table(pa.Table.from_pylist(rows[4:], SCHEMA.append(label)), folder / "shard-00001-b.parquet")
    return folder


@pytest.fixture
def examples(split: Path, several: config.Encoders) -> Examples:
    return Examples(split, {"image": Image(several.image)})


def test_an_item_has_all_pictures_of_its_row(examples: Examples) -> None:
    items = [examples[number]["image"] for number in range(len(examples))]
    assert [0 if item is None else len(item) for item in items] == COUNTS
    assert examples.present()["image"].tolist() == [count > 0 for count in COUNTS]
    assert [tuple(picture[16, 16]) for picture in items[3]] == COLORS[:3]
    assert items[3].shape == (3, 32, 32, 3)
    assert list(examples.lengths(["image"]) * np.mean(COUNTS)) == pytest.approx(COUNTS)


def test_rows_with_several_are_refused_by_an_encoder_for_one(split: Path, encoders: config.Encoders) -> None:
    with pytest.raises(DataError, match=r"a row has 2 files of image, and encoders\.image takes one"):
        Examples(split, {"image": Image(encoders.image)})


def test_features_are_the_mean_over_a_rows_pictures(
    examples: Examples, several: config.Encoders, expert: Callable[..., config.Expert]
) -> None:
    model = build_member(expert("image"), several, Classification(LABELS), 0).eval()
    reader = Image(several.image).reader
    found = encode(model, "image", examples, Collator({"image": reader}, 3))
    assert found[1] is None
    for number in (0, 2, 3, 5):
        with torch.no_grad():
            vectors = model.encoders["image"](torch.from_numpy(examples[number]["image"])).vector_BD
        np.testing.assert_allclose(found[number], vectors.mean(0).numpy(), atol=1e-5)


AUGMENT = dict.fromkeys(["flip", "degrees", "translate", "scale", "color", "erase", "mixup"], 0.0)


def test_each_picture_is_changed_by_a_draw_of_its_own_and_the_first_as_an_only_one(
    several: config.Encoders, encoders: config.Encoders
) -> None:
    augment = config.Augment.model_validate({"image": AUGMENT | {"color": 0.9}})
    each, one = Image(several.image).build_change(augment), Image(encoders.image).build_change(augment)
    assert each is not None
    assert one is not None
    picture = np.full((32, 32, 3), 100, np.uint8)
    changed = each(np.stack([picture] * 3), 11)
    np.testing.assert_array_equal(changed[0], one(picture, 11))
    assert len({tuple(part[0, 0]) for part in changed}) == 3
    np.testing.assert_array_equal(changed, each(np.stack([picture] * 3), 11))


def test_pictures_are_laid_over_those_of_the_other_row_in_turn() -> None:
    counts = torch.tensor([1, 3, 0, 2])
    levels = torch.tensor([[200, 0, 0], [40, 80, 120], [0, 0, 0], [10, 250, 0]], dtype=torch.uint8)
    batch: dict[str, Any] = {
        "pixels": levels[:, :, None, None, None].expand(-1, -1, 2, 2, 3), "picture_counts": counts,
        "has_image": counts > 0, "labels": torch.eye(4),
    }  # fmt: skip
    seen = 0
    for draw in range(20):
        mixed = mix_pictures(batch, 1.0, ["image"], draw)
        for row in (0, 1, 3):
            (other,) = [at for at in range(4) if at != row and mixed["labels"][row, at] > 0] or [row]
            share = float(mixed["labels"][row, row]) if other != row else 1.0
            for place in range(int(counts[row])):
                partner = float(levels[other, place % int(counts[other])])
                expected = share * float(levels[row, place]) + (1 - share) * partner
                assert float(mixed["pixels"][row, place, 0, 0, 0]) == pytest.approx(expected, abs=0.51)
                seen += other != row and place >= int(counts[other])
        assert torch.equal(mixed["labels"][2], batch["labels"][2])
    assert seen


@pytest.mark.parametrize("shorter", [None, 24])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(60, 90), (90, 61), (24, 24), (13, 40)], ids=str)
def test_pictures_of_different_sizes_are_served_as_they_are_trained(
    size: tuple[int, int], kernel: str, shorter: int | None
) -> None:
    data = to_png(scene(*size))
    expected = keep_square(data, 24, shorter, kernel).astype(int)
    served = to_square(decode_image(data), Square(24, shorter, kernel)).astype(int)
    assert np.abs(served - expected).max() <= 2
    assert np.abs(served - expected).mean() < 0.4


def test_pictures_of_one_size_are_left_to_the_graph() -> None:
    reader = ImageReader(Square(24, None, "bilinear"))
    assert reader.read([paint(), paint()]).shape == (2, 36, 40, 3)
    assert reader.read([paint(), paint(width=41)]).shape == (2, 24, 24, 3)
    assert reader.read(paint(width=41)).shape == (1, 36, 41, 3)


def test_the_reader_is_found_again_beside_a_model(tmp_path: Path) -> None:
    reader = ImageReader(Square(24, 30, "bicubic"))
    reader.save(tmp_path)
    assert ImageReader.open(tmp_path).several == reader.several
    (tmp_path / "plain").mkdir()
    ImageReader().save(tmp_path / "plain")
    assert not list((tmp_path / "plain").iterdir())
    assert ImageReader.open(tmp_path / "plain").several is None
