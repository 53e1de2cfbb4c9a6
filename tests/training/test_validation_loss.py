"""The validation loss is a mean over words, however texts are dealt to batches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from fuseline.config import Encoders
from fuseline.data.shards import SCHEMA, write_table
from fuseline.tasks.ner import Ner
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.pretrained import build_member
from fuseline.training.trainer import MemberTrainer, build_arguments, score_by
from tests.conftest import LABELS, liven
from tests.training.test_trainer import COMMON

TASK = Ner(LABELS, "bio")


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give nine texts of one to nine words, the last of them cut off; the longer, the more entities."""
    folder, rows = tmp_path_factory.mktemp("texts"), []
    for number in range(9):
        text = " ".join(["the"] * (number // 2) + ["rose"] * (number + 1 - number // 2))
        target = json.dumps([[4 * (number // 2), 4 * (number // 2) + 4, "red"]])
        rows.append({"id": f"e{number}", "group": f"g{number}", "text": text, "target": target, "source": "made up"})
    labels = pa.array([TASK.number(row["target"], row["text"]) for row in rows], pa.list_(pa.int64()))
    write_table(pa.Table.from_pylist(rows, schema=SCHEMA).append_column("label", labels), folder / "shard.parquet")
    return folder


@pytest.mark.parametrize("loss", ["cross_entropy", "crf"])
def test_the_validation_loss_is_a_mean_over_words_with_any_batch_size(
    loss: str, texts: Path, encoders: Encoders, expert: Callable[..., Any], tmp_path: Path
) -> None:
    short = encoders.model_copy(update={"text": encoders.text.model_copy(update={"max_length": 10})})
    recipe, modalities = expert(loss=loss), build_modalities(short, ["text"], words=True)
    model = liven(build_member(recipe, short, TASK, seed=0), seed=0).eval()
    collate = Collator({"text": modalities["text"].reader}, len(TASK.classes), words=True)
    rows, arguments = Examples(texts, modalities), build_arguments(recipe, COMMON, tmp_path)

    def validate(batch_size: int) -> float:
        arguments.per_device_eval_batch_size = batch_size
        trainer = MemberTrainer(
            model=model, args=arguments, train_dataset=rows, eval_dataset=rows, data_collator=collate,
            compute_metrics=lambda found: {"f1": score_by(TASK, model).of(found.predictions, found.label_ids)},
        )  # fmt: skip
        trainer.prepare(collate, recipe.batch_size, None)
        return trainer.evaluate()["eval_loss"]

    whole = collate([rows[index] for index in range(len(rows))])
    with torch.inference_mode():
        expected = float(model(**whole)["loss"])
        alone = [float(model(**collate([rows[index]]))["loss"]) for index in range(len(rows))]
    assert abs(sum(alone) / len(alone) - expected) > 0.01  # by rows it would be another
    assert [validate(size) for size in (1, 4, 64)] == pytest.approx([expected] * 3, abs=1e-6)
