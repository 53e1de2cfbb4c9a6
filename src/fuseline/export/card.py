"""The bundle's README: a model card with numbers, and a snippet that needs no Fuseline."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.records import Evaluation, Metrics

HEAD = """\
---
library_name: onnx
tags: [{tags}]
---

# {name}

{what}

## Reached on the test split ({rows:,} rows)

| | accuracy | macro F1 | negative log-likelihood | calibration error |
|---|---|---|---|---|
"""

USE = """\

Intervals are {confidence:.0%} bootstrap intervals, whole groups of rows drawn. Labels: {labels}.

## Use

Needs `onnxruntime numpy{needs}`; run it in this folder. `bundle.json` lists inputs, outputs, labels and
the sha256 of each file: check them before you trust a copy.

```python
"""

TEXT_LINES = """\
tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts and pads as in training
encoding = tokenizer.encode(TEXT or "")
inputs["input_ids"] = np.array([encoding.ids or [tokenizer.padding["pad_id"]]])
inputs["attention_mask"] = np.array([encoding.attention_mask or [0]])
inputs["has_text"] = np.array([TEXT is not None])
"""

IMAGE_LINES = """\
picture = Image.new("RGB", (1, 1))  # stands in where there is none; scale 16-bit grey to 8 bits beforehand
if IMAGE is not None:
    rgba = ImageOps.exif_transpose(Image.open(IMAGE)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
inputs["pixels"] = np.asarray(picture)[None]
inputs["has_image"] = np.array([IMAGE is not None])
"""


AUDIO_LINES = """\
samples = np.zeros(1, dtype=np.float32)  # stands in where there is none
if AUDIO is not None:
    settings = json.load(open("audio.json"))
    with soundfile.SoundFile(AUDIO) as sound:
        given, rate = sound.samplerate, settings["rate"]
        samples = sound.read(math.ceil(settings["max_seconds"] * given), dtype="float32", always_2d=True).mean(1)
    if given != rate:
        common = math.gcd(given, rate)
        samples = resample_poly(samples, rate // common, given // common).astype(np.float32)
    samples = samples[: max(1, int(settings["max_seconds"] * rate))]
inputs["waveform"] = samples[None]
inputs["waveform_lengths"] = np.array([len(samples)])
inputs["has_audio"] = np.array([AUDIO is not None])
"""


def render_card(name: str, labels: Sequence[str], evaluation: Evaluation, modalities: Sequence[str]) -> str:
    """Write the model card in Markdown."""
    needs = {"text": " tokenizers", "image": " pillow", "audio": " soundfile scipy"}
    return "".join(
        [
            HEAD.format(
                name=name,
                rows=evaluation.rows,
                what=describe(modalities, len(evaluation.members)),
                tags=", ".join([*modalities, *(["multimodal"] if len(modalities) > 1 else []), "fuseline"]),
            ),
            *(_row(title, metrics) for title, metrics in _systems(evaluation)),
            USE.format(
                confidence=evaluation.confidence, labels=", ".join(labels), needs="".join(needs[m] for m in modalities)
            ),
            snippet(modalities),
            "```\n",
        ]
    )


def describe(modalities: Sequence[str], members: int) -> str:
    """Say in a paragraph what the graph is."""
    takes = {"text": "raw text tokens", "image": "uint8 pictures of any size", "audio": "raw samples of any length"}
    steps = [
        *["resizing and normalising"] * ("image" in modalities), *["spectra or scaling"] * ("audio" in modalities),
        *["combining"] * (members > 1), "calibration",
    ]  # fmt: skip
    kind = f"an ensemble of {members} members" if members > 1 else "one model"
    return (
        f"One ONNX graph holding {kind} on {' and '.join(modalities)}.\n"
        f"It takes {' and '.join(takes[name] for name in modalities)}; inside it does {', '.join(steps)}."
        + ("\nAny of the modalities may be missing, but not all." if len(modalities) > 1 else "")
    )


def snippet(modalities: Sequence[str]) -> str:
    """Return the Python code that answers one row; TEXT, IMAGE and AUDIO are its inputs."""
    imports = ["import json\n", "import numpy as np\nimport onnxruntime as ort\n"]
    constants, steps = [], []
    if "text" in modalities:
        imports.append("from tokenizers import Tokenizer\n")
        constants.append('TEXT = "a text, or None"\n')
        steps.append(TEXT_LINES)
    if "image" in modalities:
        imports.append("from PIL import Image, ImageOps\n")
        constants.append("IMAGE = None  # the path of a picture, or None\n")
        steps.append(IMAGE_LINES)
    if "audio" in modalities:
        imports.insert(1, "import math\n")
        imports.append("import soundfile\nfrom scipy.signal import resample_poly\n")
        constants.append("AUDIO = None  # the path of a recording, or None\n")
        steps.append(AUDIO_LINES)
    last = (
        'session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        'probabilities = session.run(["probabilities"], inputs)[0][0]\n'
        'labels = json.load(open("bundle.json"))["labels"]\n'
        "print(labels[probabilities.argmax()], float(probabilities.max()))\n"
    )
    return "".join([*imports, "\n", *constants, "inputs = {}\n", *steps, last])


def _systems(evaluation: Evaluation) -> list[tuple[str, Metrics]]:
    return [("**ensemble**", evaluation.ensemble)] + [(f"member {name}", m) for name, m in evaluation.members.items()]


def _row(title: str, metrics: Metrics) -> str:
    cells = []
    for name in ("accuracy", "macro_f1", "nll", "ece"):
        estimate = metrics[name]
        cells.append(f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]")
    return f"| {title} | {' | '.join(cells)} |\n"
