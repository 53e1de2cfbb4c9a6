"""Sound as a modality, from params to answers: an expert, a fusion of three, their bundle, its snippet."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor
from transformers import ASTConfig, ASTFeatureExtractor, AutoModel, Wav2Vec2Config, Wav2Vec2FeatureExtractor

from fuseline import config
from fuseline.data.shards import SCHEMA, write_table
from fuseline.errors import ModelError
from fuseline.export.bundle import Contents, write_bundle
from fuseline.models.ensemble import Ensemble
from fuseline.runtime.bundle import read_bundle
from fuseline.runtime.predictor import Predictor, Row
from fuseline.runtime.rows import read_jsonl, read_parquet
from fuseline.tasks.classification import Classification
from fuseline.training.checkpoints import load_member, load_readers
from fuseline.training.examples import Collator, Examples
from fuseline.training.modalities import build_modalities
from fuseline.training.modalities.audio import Audio
from fuseline.training.modalities.hub import digest_model
from fuseline.training.predict import predict_ensemble, predict_log_probs, predict_views
from fuseline.training.pretrained import build_member
from fuseline.training.session import train_member
from fuseline.training.trainer import set_up
from tests.conftest import BLOCK, combiner_of, compare

LABELS = ["low", "middle", "high"]
HERTZ = {"low": 300, "middle": 900, "high": 2200}
COMMON = config.Train(
    seed=0, threads=1, precision="fp32", device="cpu", processes=1, length_pool=None, checkpoint_steps=None
)
ALL = ["text", "image", "audio"]


@pytest.fixture(scope="module")
def sounds(tone: Callable[..., bytes], picture: Callable[..., bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a prepared folder of tones, some rows with text and picture too; row 5 of each split has no sound."""
    folder = tmp_path_factory.mktemp("sounds")
    rows = []
    for number in range(60):
        label = LABELS[number % 3]
        hertz = HERTZ[label] * (1 + (number % 7) / 40)
        rate = (8000, 16000, 11025)[number % 4 % 3]
        sound = {"bytes": tone(hertz, 0.1 + (number % 5) / 10, rate), "path": None}
        rows.append(
            {
                "id": f"s{number}", "group": f"g{number}", "target": label, "source": "made up",
                "audio": None if number % 20 == 5 else sound,
                "text": "the rose" if number % 2 or number % 20 == 5 else None,
                "image": {"bytes": picture(), "path": None} if number % 3 == 0 else None,
            }
        )  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    table = table.append_column("label", pa.array([number % 3 for number in range(60)], pa.int64()))
    for split, start in {"train": 0, "val": 20, "test": 40}.items():
        write_table(table.slice(start, 20), folder / split / "shard-00000-a.parquet")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _deterministic() -> Any:
    set_up(COMMON)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def trained(
    sounds: Path, encoders: config.Encoders, expert: Callable[..., config.Expert],
    fusion: Callable[..., config.Fusion], tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """Give build/train with an expert on sound and a fusion member on all three modalities."""
    folder = tmp_path_factory.mktemp("train")
    recipe = expert("audio", epochs=8, learning_rate={"encoder": 1e-2, "head": 1e-2})
    three = fusion(
        modalities=ALL, tuning=dict.fromkeys(ALL, "full"), modality_dropout=0.2, fusion="gated",
        learning_rate={"text": 1e-3, "image": 1e-3, "audio": 5e-3, "head": 1e-2},
    )  # fmt: skip
    for place, name, each in (("experts", "sound", recipe), ("fusions", "all", three)):
        model = build_member(each, encoders, Classification(LABELS), seed=0)
        (folder / place / name).mkdir(parents=True)
        train_member(name, model, each, Classification(LABELS), encoders, COMMON, sounds, folder / place / name)
    return folder


@pytest.fixture(scope="module")
def ensemble(trained: Path) -> Ensemble:
    members = {"all": load_member(trained / "fusions/all"), "sound": load_member(trained / "experts/sound")}
    return Ensemble(members, combiner_of([0.5, 0.5], 0.9)).eval()


@pytest.fixture(scope="module")
def bundle(trained: Path, ensemble: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "bundle"
    contents = Contents(
        name="tones", task=Classification(LABELS), members=ensemble.names, max_tokens=12, opset=20,
        data="0" * 64, card="# tones\n",
    )  # fmt: skip
    write_bundle(folder, contents, ensemble, load_readers(trained, ensemble))
    return folder


def test_an_expert_learns_tones(trained: Path, sounds: Path, encoders: config.Encoders) -> None:
    modalities = build_modalities(encoders, ["audio"])
    test = Examples(sounds / "test", modalities, only=["audio"])
    collate = Collator({"audio": modalities["audio"].reader}, 3)
    found = predict_log_probs(load_member(trained / "experts/sound"), test, collate)
    assert len(test) == 19
    assert (found.argmax(1) == test.labels).mean() > 0.8


def test_the_ensemble_takes_the_inputs_of_its_three_modalities(ensemble: Ensemble, bundle: Path) -> None:
    description = read_bundle(bundle)
    assert ensemble.modalities == description.modalities == ALL
    assert {"waveform", "waveform_lengths", "has_audio"} < set(description.inputs)
    assert description.inputs["waveform"] == "float32 [batch, samples], one channel, full scale at 1"
    assert "audio.json" in description.files


def test_the_bundle_agrees_with_torch_and_with_the_evaluation(
    bundle: Path, ensemble: Ensemble, trained: Path, sounds: Path, encoders: config.Encoders
) -> None:
    test = Examples(sounds / "test", build_modalities(encoders, ALL), only=ALL)
    evaluated, _ = predict_ensemble(ensemble, test, Collator(load_readers(trained, ensemble), 3))
    parity = compare(bundle, ensemble, sounds / "test", evaluated, [1, 4])
    assert (parity.rows, parity.argmax_agreement, parity.evaluation_agreement) == (20, 1.0, 1.0)
    assert parity.max_logit_difference < 1e-4


def test_a_modality_that_is_not_given_counts_as_missing(
    ensemble: Ensemble, trained: Path, sounds: Path, encoders: config.Encoders
) -> None:
    test = Examples(sounds / "test", build_modalities(encoders, ALL), only=ALL)
    collate = Collator(load_readers(trained, ensemble), 3)
    views = predict_views(ensemble, test, collate, [["audio"]])
    shown, alone = views.whole_UC, views.patterns[0]
    np.testing.assert_array_equal(shown, predict_ensemble(ensemble, test, collate)[0])
    with_others = [number for number in range(20) if any(test.present()[name][number] for name in ("text", "image"))]
    assert np.abs(shown - alone)[with_others].max() > 1e-4
    only_sound = [number for number in range(20) if number not in with_others]
    np.testing.assert_allclose(shown[only_sound], alone[only_sound], atol=1e-5)


def test_rows_of_json_lines_may_name_a_recording(bundle: Path, tone: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(tone(2300, rate=16000))
    (tmp_path / "rows.jsonl").write_text('{"audio": "a.wav"}\n{"text": "the rose", "audio": "a.wav"}\n')
    rows = [row for _, row in read_jsonl(tmp_path / "rows.jsonl")]
    assert rows[0] == Row(audio=tone(2300, rate=16000))
    answers = list(Predictor(bundle, ["CPUExecutionProvider"], 1).answer(rows))
    assert LABELS[answers[0].probabilities.argmax()] == "high"
    assert np.abs(answers[0].logits - answers[1].logits).max() > 1e-5


@pytest.mark.parametrize("rate", [8000, 22050])
def test_the_readmes_snippet_answers_a_recording_without_torch_or_fuseline(
    rate: int, bundle: Path, tone: Callable[..., bytes], tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_bytes(tone(900, 0.2, rate))
    (code,) = re.findall(r"```python\n(.*?)```", (bundle / "README.md").read_text(), re.DOTALL)
    for name, value in {"TEXT": None, "AUDIO": str(tmp_path / "a.wav")}.items():
        code = re.sub(rf"^{name} = .*$", lambda _, line=f"{name} = {value!r}": line, code, flags=re.MULTILINE)
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code], check=False, cwd=bundle, env=dict(os.environ), capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    answer = next(Predictor(bundle, ["CPUExecutionProvider"], 1).answer([Row(audio=tone(900, 0.2, rate))]))
    label, probability = done.stdout.split()
    assert label == LABELS[answer.probabilities.argmax()]
    assert float(probability) == pytest.approx(float(answer.probabilities.max()), abs=1e-5)


def test_rows_of_a_prepared_file_bring_their_recording(sounds: Path) -> None:
    rows = list(read_parquet(sounds / "test", ["audio"]))
    assert len(rows) == 19
    assert all(row.audio is not None and row.text is None for row in rows)


CHANGES = {
    "rate": 4000, "max_seconds": 0.05, "mels": 24, "window_ms": 50.0, "hop_ms": 5.0, "widths": [6, 4, 8],
}  # fmt: skip


@pytest.mark.parametrize("key", CHANGES)
def test_each_key_of_the_network_from_nothing_changes_what_comes_out(
    key: str, encoders: config.Encoders, tone: Callable[..., bytes]
) -> None:
    def encode(settings: Any) -> Tensor:
        audio, changed = Audio(settings), encoders.model_copy(update={"audio": settings})
        recipe = {"modality": "audio", "tuning": "full", "learning_rate": {"encoder": 1e-3, "head": 1e-2}}
        member = build_member(
            config.Expert.model_construct(**recipe, dropout=0.0, loss="cross_entropy"),
            changed,
            Classification(LABELS),
            seed=0,
        ).eval()
        batch = Collator({"audio": audio.reader}, 3)([{"audio": audio.reader.read(tone(700, 0.4)), "label": 0}])
        with torch.no_grad():
            logits: Tensor = member(**batch)["logits"]
        return logits

    assert encoders.audio is not None
    assert not torch.allclose(encode(encoders.audio), encode(encoders.audio.model_copy(update={key: CHANGES[key]})))


SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [8, 8], "conv_stride": [5, 2], "conv_kernel": [10, 3], "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.fixture(scope="module", params=["wav2vec 2.0", "Audio Spectrogram Transformer"])
def pretrained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> config.AudioTransformer:
    """Give a tiny model with its extractor in a folder, as save_pretrained leaves them."""
    folder = tmp_path_factory.mktemp("audio-model")
    torch.manual_seed(3)
    if request.param == "wav2vec 2.0":
        AutoModel.from_config(Wav2Vec2Config(**SMALL)).save_pretrained(folder)
        Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    else:
        shape = ASTConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, patch_size=8,
            frequency_stride=8, time_stride=8, max_length=48, num_mel_bins=16,
        )  # fmt: skip
        AutoModel.from_config(shape).save_pretrained(folder)
        ASTFeatureExtractor(sampling_rate=8000, num_mel_bins=16, max_length=48).save_pretrained(folder)
    return config.AudioTransformer(name=str(folder), revision=digest_model(folder), max_seconds=0.4)


def test_pretrained_weights_are_loaded_trained_and_come_back(
    pretrained: config.AudioTransformer, sounds: Path, encoders: config.Encoders, expert: Callable[..., Any],
    tmp_path: Path,
) -> None:  # fmt: skip
    recipe = expert("audio", epochs=1)
    own = encoders.model_copy(update={"audio": pretrained})
    member = build_member(recipe, own, Classification(LABELS), seed=0)
    written = AutoModel.from_pretrained(pretrained.name).state_dict()
    loaded = member.encoders["audio"].backbone.state_dict()
    assert all(torch.equal(loaded[name], written[name]) for name in loaded)
    train_member("sound", member, recipe, Classification(LABELS), own, COMMON, sounds, tmp_path)
    moved = [name for name, tensor in load_member(tmp_path).encoders["audio"].backbone.state_dict().items()
             if not torch.equal(tensor, written[name])]  # fmt: skip
    assert len(moved) > 10
    val = Examples(sounds / "val", build_modalities(own, ["audio"]))
    again = predict_log_probs(load_member(tmp_path), val, Collator({"audio": Audio(pretrained).reader}, 3))
    np.testing.assert_allclose(again, np.load(tmp_path / "validation.npy"), atol=1e-5)


def test_the_rate_of_a_pretrained_model_is_its_extractors(pretrained: config.AudioTransformer) -> None:
    assert Audio(pretrained).reader.describe() == "rate 8000 seconds 0.4"


def test_a_folder_with_other_weights_than_pinned_is_refused(pretrained: config.AudioTransformer) -> None:
    with pytest.raises(ModelError, match=r"encoders\.audio\.revision: the files in .* have the digest"):
        Audio(pretrained.model_copy(update={"revision": "0" * 64}))


def test_a_model_of_another_kind_is_refused(text_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_bytes((text_folder / "config.json").read_bytes())
    Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    settings = config.AudioTransformer(name=str(folder), revision=digest_model(folder), max_seconds=1.0)
    with pytest.raises(ModelError, match="is a bert; expected an encoder of samples"):
        Audio(settings).architecture()


def test_a_model_that_does_not_say_how_it_wants_samples_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    settings = config.AudioTransformer(name=str(tmp_path), revision=digest_model(tmp_path), max_seconds=1.0)
    with pytest.raises(ModelError, match=r"no preprocessor_config\.json could be loaded"):
        Audio(settings)
