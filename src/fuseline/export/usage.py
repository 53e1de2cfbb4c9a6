"""How to use a bundle without Fuseline: the last part of its README."""

from __future__ import annotations

from collections.abc import Sequence

from fuseline.tasks.base import Unit

USE = """
## Use

Needs `onnxruntime numpy{needs}`, in the versions of `requirements.txt`; run it in this folder. `bundle.json`
lists inputs, outputs, labels and the sha256 of each file: check them before you trust a copy. `sbom.cdx.json` is the
bill of materials.

```python
"""

TEXT_LINES = """\
tokenizer = Tokenizer.from_file("tokenizer.json")  # cuts and pads as in training
encoding = tokenizer.encode(TEXT or "")
inputs["input_ids"] = np.array([encoding.ids or [tokenizer.padding["pad_id"]]])
inputs["attention_mask"] = np.array([encoding.attention_mask or [0]])
inputs["has_text"] = np.array([TEXT is not None])
"""

LAYOUT_LINES = """\
stretches, places, at = sorted(BOXES), [], 0  # of each token, the box of the first stretch that it has a part in
for start, end in encoding.offsets:
    while at < len(stretches) and stretches[at][1] <= start:
        at += 1
    placed = at < len(stretches) and stretches[at][0] < end
    places.append(stretches[at][2:] if placed else [-1] * 4)
inputs["boxes"] = np.array([places or [[-1] * 4]])
"""

IMAGE_LINES = """\
picture = Image.new("RGB", (1, 1))  # stands in where there is none; scale 16-bit grey to 8 bits beforehand
if IMAGE is not None:
    rgba = ImageOps.exif_transpose(Image.open(IMAGE)).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
inputs["pixels"] = np.asarray(picture)[None]
inputs["has_image"] = np.array([IMAGE is not None])
"""


SEVERAL_LINES = """\
pictures = [Image.new("RGB", (1, 1))]  # stands in where there is none; scale 16-bit grey to 8 bits beforehand
if IMAGES:
    rgba = [ImageOps.exif_transpose(Image.open(path)).convert("RGBA") for path in IMAGES]
    pictures = [Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB") for one in rgba]
if len({one.size for one in pictures}) > 1:  # pictures of one call are of one size
    settings = json.load(open("image.json"))
    side, shorter = settings["side"], settings["shorter"]
    kernel = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[settings["kernel"]]
    for number, one in enumerate(pictures):
        size = [length * shorter // min(one.size) for length in one.size] if shorter else [side, side]
        left, top = [(length - side) // 2 for length in size]
        pictures[number] = one.resize(size, kernel).crop((left, top, left + side, top + side))
inputs["pixels"] = np.stack([np.asarray(one) for one in pictures])[None]
inputs["picture_counts"] = np.array([len(IMAGES)])
inputs["has_image"] = np.array([len(IMAGES) > 0])
"""

LAYOUT_CONSTANT = """\
BOXES = []  # of the text's stretches: [start, end, left, top, right, bottom], thousandths of the picture's sides
"""

WORD_LINES = """\
pattern = json.load(open("words.json"))["pattern"]
words = [at for _, at in Split(Regex(pattern), "removed", invert=True).pre_tokenize_str(TEXT)]
first, token, offsets = [], 0, encoding.offsets  # of each word's tokens the first, -1 for none
for start, end in words:
    while token < len(offsets) and offsets[token][1] <= start:
        token += 1
    first.append(token if token < len(offsets) and offsets[token][0] < end else -1)
inputs["words"] = np.array([first or [-2]])
"""

ENTITY_LINES = """\
bundle = json.load(open("bundle.json"))
steps = {name: np.array(scores) for name, scores in bundle["transitions"].items()}
scores = np.log(np.clip(probabilities, 1e-30, 1))
total, back = steps["start"] + scores[0], []  # the best sound sequence of tags (Viterbi)
for score in scores[1:]:
    reached = total[:, None] + steps["steps"]
    back.append(reached.argmax(0))
    total = reached.max(0) + score
path = [(total + steps["end"]).argmax()]
for origin in reversed(back):
    path.append(origin[path[-1]])
entities = []
for (start, end), tag in zip(words, path[::-1]):
    part, _, label = bundle["tags"][tag].partition("-")
    if part in ("B", "S"):
        entities.append([start, end, label])
    elif part in ("I", "E"):
        entities[-1][1] = end
for start, end, label in entities:
    print(start, end, label, repr(TEXT[start:end]))
"""

LABEL_LINES = """\
bundle = json.load(open("bundle.json"))
for label, (_, probability), threshold in zip(bundle["labels"], probabilities, bundle["thresholds"]):
    if probability >= threshold:
        print(label, float(probability))
"""

CLASS_LINES = """\
labels = json.load(open("bundle.json"))["labels"]
print(labels[probabilities.argmax()], float(probabilities.max()))
"""

ANSWERS = {"row": CLASS_LINES, "word": ENTITY_LINES, "label": LABEL_LINES}

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


def tell_usage(modalities: Sequence[str], unit: Unit = "row", several: bool = False, layout: bool = False) -> str:
    """Write the section in Markdown; arguments as of `snippet`."""
    needs = {"text": " tokenizers", "image": " pillow", "audio": " soundfile scipy"}
    listed = "".join(needs[modality] for modality in modalities)
    return f"{USE.format(needs=listed)}{snippet(modalities, unit, several, layout)}```\n"


def snippet(modalities: Sequence[str], unit: Unit = "row", several: bool = False, layout: bool = False) -> str:
    """Return the Python code that answers one row; TEXT, BOXES, IMAGE (or IMAGES) and AUDIO are its inputs.

    Args:
        unit: what is scored.
        several: whether rows may have several pictures.
        layout: whether it sees where words stand in the picture.
    """
    words = unit == "word"
    imports = ["import json\n", "import numpy as np\nimport onnxruntime as ort\n"]
    constants, steps = [], []
    if "text" in modalities:
        imports.append(f"from tokenizers import {'Regex, ' if words else ''}Tokenizer\n")
        imports.append("from tokenizers.pre_tokenizers import Split\n" if words else "")
        constants.append('TEXT = "a text"\n' if words else 'TEXT = "a text, or None"\n')
        constants.append(LAYOUT_CONSTANT if layout else "")
        steps.append(TEXT_LINES + (LAYOUT_LINES if layout else "") + (WORD_LINES if words else ""))
    if "image" in modalities:
        imports.append("from PIL import Image, ImageOps\n")
        constants.append(
            "IMAGES = []  # paths of pictures, or none\n"
            if several
            else "IMAGE = None  # the path of a picture, or None\n"
        )
        steps.append(SEVERAL_LINES if several else IMAGE_LINES)
    if "audio" in modalities:
        imports.insert(1, "import math\n")
        imports.append("import soundfile\nfrom scipy.signal import resample_poly\n")
        constants.append("AUDIO = None  # the path of a recording, or None\n")
        steps.append(AUDIO_LINES)
    last = (
        'session = ort.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])\n'
        'probabilities = session.run(["probabilities"], inputs)[0][0]\n'
    )
    return "".join([*imports, "\n", *constants, "inputs = {}\n", *steps, last, ANSWERS[unit]])
