"""params.yaml, typed: every number that changes a result, once, without defaults in the code."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator
from pydantic_core import ErrorDetails

from fuseline.errors import ConfigError
from fuseline.records import OTHER, Kind, System

Modality = Literal["text", "image", "audio"]
Share = Annotated[float, Field(ge=0, lt=1)]
Portion = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Weight = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]


Whole = TypeVar("Whole", bound=BaseModel)


class Section(BaseModel):
    """Frozen, and no key is unknown."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Thresholds(Section):
    """Per label, the probability with the best F1 on validation."""

    shrink: Annotated[float, Field(ge=0)]
    """Rows with a label at which its own threshold counts as much as the one that is best for all labels together; 0
    gives each its own alone, a high number one to all."""


class Task(Section):
    """The problem to solve."""

    kind: Literal["classification", "multilabel", "ner", "qa", "generation"]
    """What a target is: a label; a JSON list of labels, of one or none too; a JSON list of [start, end, label]
    character spans of the text; a JSON list of [start, answer] in text_pair, each of them right, with the question in
    text; or a text. Members can be trained for the first three."""
    labels: list[str]
    """All classes, in the order of the model's outputs; for ner the span labels; empty for qa and generation."""
    thresholds: Thresholds | None = None
    """For multilabel, and only for it: from which probability a row has a label; null stands for one half."""
    scheme: Literal["bio", "bioes"] | None = None
    """For ner, and only for it: how the words of a span are tagged. bio: the first, and those inside; bioes: also the
    last, and one that stands alone."""

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is listed twice")
        least = {"classification": 2, "multilabel": 1, "ner": 1}.get(self.kind, 0)
        if len(self.labels) < least or (self.labels and not least):
            raise ValueError(
                f"labels: {self.kind} takes {f'{least} or more' if least else 'none'}, {len(self.labels)} found"
            )
        return self

    @model_validator(mode="after")
    def _scheme_fits(self) -> Self:
        if (self.kind == "ner") != (self.scheme is not None):
            raise ValueError(
                "scheme: ner takes bio or bioes" if self.kind == "ner" else f"scheme: {self.kind} takes none; remove it"
            )
        if self.kind != "multilabel" and self.thresholds is not None:
            raise ValueError(f"thresholds: {self.kind} takes none; remove it")
        return self


class Missing(Section):
    """Share of rows that may lack a modality; 1 allows all."""

    text: Annotated[float, Field(ge=0, le=1)]
    image: Annotated[float, Field(ge=0, le=1)]
    audio: Annotated[float, Field(ge=0, le=1)]


class Validate(Section):
    """The data contract. What a row breaks sends it to quarantine, what the whole breaks stops the run."""

    max_text_chars: Count
    """Longer texts are quarantined."""
    max_odd_chars: Annotated[float, Field(ge=0, le=1)]
    """Share of control, private-use and replacement characters above which a text is quarantined."""
    min_image_side: Count
    """Pictures with a shorter side, in pixels, are quarantined."""
    max_image_side: Count
    """Pictures with a longer side, in pixels, are quarantined."""
    max_image_aspect: Annotated[float, Field(ge=1)]
    """Pictures with a larger ratio of longer to shorter side are quarantined."""
    max_pictures: Count
    """Rows with more pictures are quarantined. Above 1, the picture encoder has to be one for `several`."""
    min_audio_seconds: Annotated[float, Field(ge=0)]
    """Shorter recordings are quarantined."""
    max_audio_seconds: Positive
    """Longer recordings are quarantined."""
    min_audio_rate: Count
    """Recordings with fewer samples per second are quarantined."""
    max_quarantined: Share
    """Largest share of quarantined rows with which a batch is taken in, and a run may go on."""
    max_missing: Missing
    min_class_share: Share
    """Least share of rows that each class must have; classification and multilabel only."""
    max_duplicates: Annotated[float, Field(ge=0, le=1)]
    """Largest share of rows that repeat an earlier one: the same content under the same target."""
    max_conflicts: Annotated[float, Field(ge=0, le=1)]
    """Largest share of rows whose content stands under another target too."""
    max_drift: Annotated[float, Field(ge=0, le=1)]
    """Largest total variation distance between the class shares of the newest shards, however many, and those of all
    before them. Counts only where chance does not explain it (chi-squared test, p < 0.001): small batches differ by
    nature. Where a drift is real and wanted, raise this until newer rows outweigh it."""


class Duplicates(Section):
    """Which examples count as one and the same: they go to one split, as those of one group do.

    Another setting deals examples anew: do not change it in the life of a champion.
    """

    match: Literal["all", "any"]
    """all: they match in each modality that they hold; a row that lacks one goes with the first fuller row that repeats
    it exactly in the others. any: one modality in which they match is enough; where many examples share a question,
    that joins them all."""
    text_similarity: Annotated[float, Field(gt=0, le=1)]
    """Share of six-letter stretches in common from which texts match; 1 takes those only that differ in nothing but
    case, punctuation and spacing, as short texts are compared anyway."""
    image_distance: Annotated[float, Field(ge=0, le=0.5)]
    """Root mean square difference of two pictures' thumbnails, as a share of their contrast, up to which they match;
    0 takes pictures only whose pixels are the same."""


DEALT_BY = {"salt", "val", "test", "val_from_train", "duplicates"}
"""Keys of `prepare` that rows are dealt by. Freezing the test split moves nothing by itself."""


class Prepare(Section):
    """How examples are dealt to the splits, by a stable hash of their group."""

    salt: str
    """Another salt deals the groups anew: do not change it in the life of a champion."""
    val: Annotated[float, Field(gt=0, lt=1)]
    """Share of groups for validation: early stopping, ensemble weights, temperature."""
    test: Annotated[float, Field(gt=0, lt=1)]
    """Share of groups for the test split: evaluation and gate only. An example's own `split` wins over the hash."""
    freeze_test: Count | None
    """Shards from which the test split is drawn: later ones add no example to it, they only correct those that it
    has. null lets it grow."""
    val_from_train: bool
    """Whether groups whose rows name the train split give their share, `val`, to validation: for data sets with an
    official test split and none for validation."""
    duplicates: Duplicates

    @model_validator(mode="after")
    def _something_is_left_to_train_on(self) -> Self:
        if not 0 < self.val + self.test < 1:
            raise ValueError(f"val + test is {self.val + self.test:g}; expected between 0 and 1")
        return self


def _keys_of(value: Any) -> Collection[str]:
    """Return the keys of a section, read or still to be read; none of anything else."""
    return value if isinstance(value, dict) else type(value).model_fields if isinstance(value, Section) else ()


def _check_pinned(name: str, revision: str | None) -> None:
    if name.startswith("package:"):
        if revision is not None:
            raise ValueError("a package's version stands in requirements.lock; set revision to null")
    elif not revision:
        raise ValueError(
            f"set revision to the commit of {name!r} on the hub or, for a local folder, to the digest of its "
            "files: else the same params give another model some day"
        )


class TextEncoder(Section):
    """The text side, the same for all members."""

    name: str
    """Hub id, local folder, or `package:NAME` for weights inside an installed Python package; an encoder such as BERT
    or a decoder such as GPT, not both in one such as T5."""
    revision: str | None
    """What pins a name that says too little: a hub id's commit, or the digest of a local folder's files (a wrong
    one is answered with the right one). null for a package, which requirements.lock pins."""
    max_length: Count
    """Tokens per text, special ones counted; longer texts are cut."""
    pooling: Literal["mean", "first", "last"]
    """How token states become one vector: mean, first (BERT's [CLS]) or last token (GPT)."""
    freeze_embeddings: bool
    """Leave the token embeddings as loaded: half of a small encoder's weights, and few rows to tune them on."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


class ImageEncoder(Section):
    """The picture side, the same for all members."""

    name: str
    """A classifier of `torchvision.models`, for example resnet18 or resnet50."""
    weights: str | None
    """A torchvision weights name such as IMAGENET1K_V2, `DEFAULT`, or null to start from nothing."""
    size: Annotated[int, Field(ge=16)] | None
    """Side of the square, in pixels, that every picture is resized to. null takes the weights' own way: the shorter
    side is brought to their size, and the middle cut out."""
    blocks: Annotated[list[Count], Field(min_length=4, max_length=4)] | None
    """Residual blocks per stage, for a ResNet shallower or deeper than the named one; null keeps its own."""
    several: bool
    """Whether rows may have several pictures: their vector is the mean over them, their parts are those of all. The
    graph's `pixels` then has an axis for a row's pictures, and `picture_counts` says how many count."""

    @model_validator(mode="after")
    def _weights_fit_the_blocks(self) -> Self:
        if self.blocks is not None and self.weights is not None:
            raise ValueError("weights belong to the named network; with blocks set, weights must be null")
        if self.size is None and self.weights is None:
            raise ValueError("size: null takes the size of the weights, and weights is null; set one of them")
        return self


class ImageTransformer(Section):
    """A Hugging Face vision model: ViT, Swin, ConvNeXt, DINOv2, the picture side of CLIP or SigLIP, and others."""

    name: str
    """Hub id, local folder, or `package:NAME`, as for texts."""
    revision: str | None
    """As for texts."""
    size: Annotated[int, Field(ge=16)] | None
    """Side of the square, in pixels, that every picture is resized to; null takes the model's own processor's way,
    middle cut included. Mean and deviation are the processor's either way."""
    several: bool
    """As for torchvision's."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


def _kind_of_image(value: Any) -> str:
    hub = isinstance(value, ImageTransformer) or (isinstance(value, dict) and "revision" in value)
    return "transformer" if hub else "torchvision"


AnyImageEncoder = Annotated[
    Annotated[ImageEncoder, Tag("torchvision")] | Annotated[ImageTransformer, Tag("transformer")],
    Discriminator(_kind_of_image),
]
"""The picture side, the same for all members: with a `revision` a model of Hugging Face, else one of torchvision."""


class AudioCnn(Section):
    """A log-mel spectrogram under a small convolutional network, trained from nothing."""

    rate: Annotated[int, Field(ge=1000)]
    """Samples per second that recordings are brought to."""
    max_seconds: Positive
    """Longer recordings are cut."""
    mels: Annotated[int, Field(ge=8)]
    """Mel bands."""
    window_ms: Positive
    """Length of a frame."""
    hop_ms: Positive
    """From one frame to the next."""
    widths: Annotated[list[Count], Field(min_length=1)]
    """Channels of each block; each block halves bands and frames."""


class AudioTransformer(Section):
    """A Hugging Face audio encoder: wav2vec 2.0 and its kin, or the Audio Spectrogram Transformer."""

    name: str
    """Hub id, local folder, or `package:NAME`, as for texts."""
    revision: str | None
    """As for texts."""
    max_seconds: Positive
    """Longer recordings are cut. The rate is the model's own."""

    @model_validator(mode="after")
    def _name_is_pinned(self) -> Self:
        _check_pinned(self.name, self.revision)
        return self


def _kind_of_audio(value: Any) -> str:
    return (
        "transformer" if isinstance(value, AudioTransformer) or (isinstance(value, dict) and "name" in value) else "cnn"
    )


AudioEncoder = Annotated[
    Annotated[AudioCnn, Tag("cnn")] | Annotated[AudioTransformer, Tag("transformer")], Discriminator(_kind_of_audio)
]
"""The sound side, the same for all members: with a `name` a pretrained model, else a network from nothing."""


class Encoders(Section):
    """One encoder per modality; null where no member uses it."""

    text: TextEncoder | None
    image: AnyImageEncoder | None
    audio: AudioEncoder | None


class TextAugment(Section):
    """Random changes of training texts, anew in each epoch, word by word."""

    drop: Share
    """Probability of leaving a word out; one word always stays."""
    swap: Share
    """Probability of a word and the next one changing places."""


class ImageAugment(Section):
    """Random changes of training pictures, anew in each epoch."""

    flip: Share
    """Probability of a horizontal flip."""
    degrees: Annotated[float, Field(ge=0)]
    """Largest rotation either way."""
    translate: Share
    """Largest shift, as a share of the side."""
    scale: Share
    """Largest change of scale either way: 0.2 gives 0.8 to 1.2."""
    color: Share
    """Strength of brightness, contrast and saturation jitter."""
    erase: Share
    """Probability of erasing a random rectangle."""
    mixup: Annotated[float, Field(ge=0)]
    """Each picture is laid over another one of its batch, with shares drawn from Beta(mixup, mixup) (Zhang et al.
    2018); the label moves by as much, less the share of the row's other modalities. 0 mixes nothing."""


class AudioAugment(Section):
    """Random changes of training recordings, anew in each epoch."""

    speed: Share
    """Largest change of speed, and pitch with it, either way: 0.1 gives 0.9 to 1.1 (Ko et al. 2015)."""
    noise: Annotated[float, Field(ge=0)]
    """Largest loudness of white noise, as a share of the recording's own."""
    time_mask: Share
    """Longest stretch that falls silent, as a share of the recording (Park et al. 2019, as the next)."""
    frequency_mask: Share
    """Widest band of pitches that is taken out, as a share of all, on a logarithmic scale."""


class Augment(Section):
    """Random changes of training examples, by modality; what is left out, or null, stays as it is."""

    text: TextAugment | None = None
    image: ImageAugment | None = None
    audio: AudioAugment | None = None

    def given(self) -> list[str]:
        """Return the modalities that are changed."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


class AdamW(Section):
    """Adam with weight decay of its own (Loshchilov and Hutter 2019)."""

    betas: tuple[Share, Share]
    """Decay of the running mean of gradients, and of their squares."""
    eps: Positive
    """Added to the root of the mean square."""


class SGD(Section):
    """Stochastic gradient descent."""

    momentum: Share
    """Share of the last step that the next one keeps."""
    nesterov: bool
    """Look ahead along the momentum."""

    @model_validator(mode="after")
    def _has_momentum_to_look_along(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self


def _kind_of_optimizer(value: Any) -> str:
    return "sgd" if isinstance(value, SGD) or (isinstance(value, dict) and "momentum" in value) else "adamw"


Optimizer = Annotated[Annotated[AdamW, Tag("adamw")] | Annotated[SGD, Tag("sgd")], Discriminator(_kind_of_optimizer)]
"""AdamW by its betas and eps, or SGD by its momentum and nesterov."""


class Polynomial(Section):
    """The learning rate falls by a power of what is left of the steps."""

    power: Positive
    end: Share
    """Share of the peak that is left at the end."""


class Restarts(Section):
    """The learning rate falls by half a cosine, several times over."""

    cycles: Count


def _kind_of_schedule(value: Any) -> str:
    if isinstance(value, dict | Polynomial | Restarts):
        return "restarts" if isinstance(value, Restarts) or "cycles" in value else "polynomial"
    return "name"


Schedule = Annotated[
    Annotated[Literal["linear", "cosine", "constant", "constant_with_warmup"], Tag("name")]
    | Annotated[Polynomial, Tag("polynomial")]
    | Annotated[Restarts, Tag("restarts")],
    Discriminator(_kind_of_schedule),
]
"""How the learning rate falls after the warmup, if there is one."""


class Focal(Section):
    """Focal loss (Lin et al. 2017): what is predicted well already counts less."""

    gamma: Positive
    """Each class's cross-entropy is multiplied by (1 - probability) ** gamma."""


def _kind_of_loss(value: Any) -> str:
    return "focal" if isinstance(value, dict | Focal) else "name"


Loss = Annotated[
    Annotated[Literal["cross_entropy", "crf"], Tag("name")] | Annotated[Focal, Tag("focal")],
    Discriminator(_kind_of_loss),
]
"""What training minimises. crf, for ner: the loss is of a text's tags as one sequence; how tags follow each other is
learned too, decides the answers, and counts in validation. With any other, validation is by plain cross-entropy."""


def _kind_of_weights(value: Any) -> str:
    return "given" if isinstance(value, dict) else "name"


ClassWeights = Annotated[
    Annotated[Literal["balanced"], Tag("name")] | Annotated[dict[str, Positive], Tag("given")],
    Discriminator(_kind_of_weights),
]
"""Factor of each class in the training loss: balanced, by the inverse of its share among the training rows, 1 on
average; or one per label, for ner also one for O, the words outside; for multilabel of the rows that have the label,
while those without it weigh 1."""


class Lora(Section):
    """Low-rank adapters beside the encoder's own weights, which stay (Hu et al. 2021); merged when training is over."""

    rank: Count
    """Rank of each adapter."""
    alpha: Positive
    """The adapters' sum is scaled by alpha / rank."""
    dropout: Share
    """Before the adapters."""
    targets: Literal["attention", "all"]
    """Which layers get adapters. attention: the projections that PEFT names for the kind of text model, query and value
    in BERT; all: every linear layer and convolution."""


class LastLayers(Section):
    """The last layers alone are trained."""

    layers: Count
    """How many: blocks of a transformer, stages of a convolutional network."""


def _kind_of_tuning(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = _keys_of(value)
    return "layers" if "layers" in keys else "lora"


Tuning = Annotated[
    Annotated[Literal["full", "bitfit", "frozen"], Tag("name")]
    | Annotated[Lora, Tag("lora")]
    | Annotated[LastLayers, Tag("layers")],
    Discriminator(_kind_of_tuning),
]
"""Which of an encoder's weights are trained: all; its biases (BitFit, Ben Zaken et al. 2022); none, so that fusion and
head alone learn; low-rank adapters; or the last layers. Norms and dropout of what is frozen behave as in evaluation."""


class Decayed(Section):
    """A learning rate that falls from an encoder's last layer to its first."""

    top: Positive
    """Of the last layer and what follows it."""
    decay: Annotated[float, Field(gt=0, lt=1)]
    """Factor from each layer to the one below it; embeddings, or a stem, count as a layer."""


def _kind_of_rate(value: Any) -> str:
    return "decayed" if isinstance(value, dict | Decayed) else "number"


Rate = Annotated[Annotated[Positive, Tag("number")] | Annotated[Decayed, Tag("decayed")], Discriminator(_kind_of_rate)]
"""Peak learning rate of an encoder: one for all of it, or one that falls layer by layer."""


def _check_rates(rates: dict[str, tuple[str, Any, Any]]) -> None:
    """Refuse a rate without effect, and a tuning without a rate; names lead to (key of the rate, tuning, rate)."""
    for where, (key, tuning, rate) in rates.items():
        if (tuning == "frozen") != (rate is None):
            raise ValueError(
                f"{where} is {'frozen' if tuning == 'frozen' else 'trained'}, but {key} is "
                f"{'null' if rate is None else 'not null'}; an encoder has a learning rate unless it is frozen"
            )


def _check_augments(augment: Augment, modalities: list[Modality]) -> None:
    if idle := sorted(set(augment.given()) - set(modalities)):
        raise ValueError(f"augment.{idle[0]}: the member does not use {idle[0]}; remove it")


class WarmStart(Section):
    """Training that goes on from the champion's member of the same name, where it has one that fits."""

    replay: Annotated[float, Field(gt=0, le=1)]
    """Share of the rows that the champion's data set held, drawn anew for each epoch; rows that came since are in every
    one. 1 takes all rows."""


class Soup(Section):
    """Weights averaged over several trainings (greedy model soup, Wortsman et al. 2022).

    All begin alike and differ in what is drawn. The best on validation comes first; another one stays in the average
    only if the metric by which systems are compared does not fall.
    """

    seeds: Annotated[int, Field(ge=2)]
    """How many trainings: with `train.seed` and those after it."""


class Optimisation(Section):
    """How weights are trained, by transformers.Trainer."""

    optimizer: Optimizer
    weight_decay: Annotated[float, Field(ge=0)]
    """On weight matrices; never on biases and norms."""
    max_grad_norm: Positive
    """Longer gradients, over all weights of a step, are shortened to this norm."""
    epochs: Count
    """Passes over the training rows, at most."""
    batch_size: Count
    """Rows per step, over all processes and all parts of it."""
    accumulation: Count
    """Parts in which a step's rows are computed one after the other, to save memory; their gradients are summed."""
    warmup: Share
    """Share of the steps over which the learning rate rises."""
    schedule: Schedule
    patience: Count | None
    """Epochs without a better validation loss before training stops; null trains all epochs."""
    augment: Augment

    @model_validator(mode="after")
    def _steps_fit(self) -> Self:
        if self.batch_size < self.accumulation:
            raise ValueError(f"accumulation is {self.accumulation}; expected at most batch_size, {self.batch_size}")
        if self.schedule == "constant" and self.warmup:
            raise ValueError("the schedule constant has no warmup; set warmup to 0 or take constant_with_warmup")
        return self


class Recipe(Optimisation):
    """Training of one member."""

    warm_start: WarmStart | None
    """null trains anew each time. A member that goes on keeps what the champion knows of its labels, by their names,
    and learns those that are new; where there is nothing to go on from, it is trained anew, and its record says why."""
    dropout: Share
    """Before the head."""
    loss: Loss
    class_weights: ClassWeights | None
    """null weighs all classes alike."""
    label_smoothing: Share
    """Share of each label that is spread evenly over all classes."""
    soup: Soup | None
    """null trains once."""

    @model_validator(mode="after")
    def _loss_fits(self) -> Self:
        if self.loss == "crf" and (self.class_weights is not None or self.label_smoothing):
            raise ValueError(
                "the loss crf is of whole sequences and knows no weights of classes and no smoothing; set "
                "class_weights to null and label_smoothing to 0"
            )
        return self


class ExpertRates(Section):
    """Peak learning rates of an expert."""

    encoder: Rate | None
    """null with the tuning `frozen`, and only with it."""
    head: Positive


class Expert(Recipe):
    """A member on one modality."""

    modality: Modality
    tuning: Tuning
    learning_rate: ExpertRates

    @model_validator(mode="after")
    def _rates_fit(self) -> Self:
        _check_rates({"tuning": ("learning_rate.encoder", self.tuning, self.learning_rate.encoder)})
        return self

    @model_validator(mode="after")
    def _augments_fit(self) -> Self:
        _check_augments(self.augment, self.modalities)
        return self

    @property
    def modalities(self) -> list[Modality]:
        """The one modality, as a list."""
        return [self.modality]

    @property
    def layout(self) -> bool:
        """Where a text stands in a picture is nothing to a member on one of them."""
        return False

    @property
    def tunings(self) -> dict[Modality, Tuning]:
        """Tuning by modality."""
        return {self.modality: self.tuning}

    @property
    def rates(self) -> dict[Modality, float | Decayed | None]:
        """Peak learning rate of the encoder by modality."""
        return {self.modality: self.learning_rate.encoder}


class FusionRates(Section):
    """Peak learning rates of a fusion member; null with the tuning `frozen`, and only with it."""

    text: Rate | None = None
    image: Rate | None = None
    audio: Rate | None = None
    head: Positive
    """Fusion and head."""

    def named(self) -> list[str]:
        """Return the modalities that are named."""
        return [name for name in get_args(Modality) if name in self.model_fields_set]


class OnSeveral(Section):
    """What is trained on several modalities at once."""

    modalities: Annotated[list[Modality], Field(min_length=2)]
    learning_rate: FusionRates

    @property
    def rates(self) -> dict[Modality, float | Decayed | None]:
        """Peak learning rate of each encoder by modality."""
        return {name: getattr(self.learning_rate, name) for name in self.modalities}


class LowRank(Section):
    """Products of the modalities' vectors, summed (Liu et al. 2018)."""

    rank: Count
    """How many products."""


class CrossAttention(Section):
    """Words, patches and frames of each modality attend to those of the others (co-attention, Lu et al. 2019)."""

    heads: Count
    """Of each attention; they share `hidden` among them."""
    layers: Count
    """How often the modalities look at each other."""


class Mixture(Section):
    """A router chooses a few networks for each example (mixture of experts, Fedus et al. 2022)."""

    experts: Annotated[int, Field(ge=2)]
    """Networks to choose from, all on all of the member's modalities: not the ensemble's experts."""
    chosen: Count
    """Networks per example."""
    balance: Annotated[float, Field(ge=0)]
    """Weight of the loss that, in training, keeps the router from sending all examples to the same networks. It is
    over the rows of each part and process."""

    @model_validator(mode="after")
    def _there_are_enough(self) -> Self:
        if self.chosen > self.experts:
            raise ValueError(f"chosen is {self.chosen}; expected at most experts, {self.experts}")
        return self


def _kind_of_fusion(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = _keys_of(value)
    return "low rank" if "rank" in keys else "mixture" if "experts" in keys else "attention"


Joining = Annotated[
    Annotated[Literal["concat", "gated", "late"], Tag("name")]
    | Annotated[LowRank, Tag("low rank")]
    | Annotated[CrossAttention, Tag("attention")]
    | Annotated[Mixture, Tag("mixture")],
    Discriminator(_kind_of_fusion),
]
"""How the modalities are joined. concat: their vectors one after the other, mixed by a layer; gated: weighed by gates
that see all of them (Arevalo et al. 2017); late: one head for each, and the average of the logits of those that are
there; or a section, for low-rank products, cross-attention, or a mixture of experts."""


class Fusion(Recipe, OnSeveral):
    """A member on several modalities at once."""

    fusion: Joining
    """How the modalities are joined."""
    hidden: Count
    """Width of the joint space; of late fusion, of each modality's own."""
    modality_dropout: Share
    """Probability, per example and modality, of hiding it in training; never hides all."""
    start: dict[Modality, Name]
    """Modality to the trained expert whose encoder it starts from; modalities left out start as loaded. Of no account
    where it goes on from the champion's member, which `warm_start` asks for."""
    tuning: dict[Modality, Tuning]
    """By modality, one for each of the member's."""
    layout: bool
    """Whether the text encoder sees where tokens stand in the picture and to each other, of rows that say so (`boxes`).
    It learns that at the head's rate. Rows without their picture show none of it."""

    @model_validator(mode="after")
    def _modalities_are_distinct(self) -> Self:
        if len(set(self.modalities)) != len(self.modalities):
            raise ValueError("a modality is listed twice")
        return self

    @model_validator(mode="after")
    def _layout_fits(self) -> Self:
        if self.layout and not {"text", "image"} <= set(self.modalities):
            raise ValueError(
                f"layout is true, but modalities are {', '.join(self.modalities)}; it is of text and image: set it to "
                "false, or add what lacks"
            )
        if self.layout and self.augment.text is not None:
            raise ValueError(
                "layout is true, and augment.text moves words away from where their boxes say; set one of them to "
                "false or null"
            )
        return self

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Self:
        if isinstance(self.fusion, CrossAttention) and self.hidden % self.fusion.heads:
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of fusion.heads, {self.fusion.heads}")
        return self

    @model_validator(mode="after")
    def _augments_fit(self) -> Self:
        _check_augments(self.augment, self.modalities)
        return self

    @model_validator(mode="after")
    def _tunings_fit(self) -> Self:
        for key, found in (("tuning", list(self.tuning)), ("learning_rate", self.learning_rate.named())):
            if set(found) != set(self.modalities):
                raise ValueError(f"{key}: expected {', '.join(self.modalities)}; found {', '.join(found) or 'none'}")
        _check_rates(
            {
                f"tuning.{name}": (f"learning_rate.{name}", tuning, self.rates[name])
                for name, tuning in self.tuning.items()
            }
        )
        return self

    @property
    def tunings(self) -> dict[Modality, Tuning]:
        """Tuning by modality."""
        return self.tuning


Member = Expert | Fusion


class Members(Section):
    """The ensemble's members by name; a name stands for one member only."""

    experts: Annotated[dict[Name, Expert], Field(min_length=1)]
    fusions: dict[Name, Fusion]

    @model_validator(mode="after")
    def _names_and_starts_fit(self) -> Self:
        if twice := set(self.experts) & set(self.fusions):
            raise ValueError(f"{', '.join(sorted(twice))} names both an expert and a fusion member")
        for name, fusion in self.fusions.items():
            for modality, expert in fusion.start.items():
                if not self.experts_on(modality):
                    raise ValueError(f"fusions.{name}.start.{modality}: there is no expert on {modality} to start from")
                if expert not in self.experts_on(modality):
                    raise ValueError(
                        f"fusions.{name}.start.{modality}: {expert!r} is no expert on {modality}; "
                        f"expected {' or '.join(self.experts_on(modality))}"
                    )
        return self

    def experts_on(self, modality: str) -> list[str]:
        """Return the names of the experts on a modality, sorted."""
        return sorted(name for name, expert in self.experts.items() if expert.modality == modality)

    def all(self) -> dict[str, Member]:
        """Return all members, sorted by name: DVC does not see the order of keys, so no result may depend on it."""
        members: dict[str, Member] = {**self.experts, **self.fusions}
        return dict(sorted(members.items()))

    def kind(self, name: str) -> Literal["experts", "fusions"]:
        """Return the section that a member stands in."""
        return "experts" if name in self.experts else "fusions"

    def warm(self) -> list[str]:
        """Return the places of the members that go on from the champion's, such as experts/text."""
        members: dict[str, Member] = {**self.experts, **self.fusions}
        return [f"{self.kind(name)}/{name}" for name, each in members.items() if each.warm_start is not None]

    def modalities(self) -> list[Modality]:
        """Return the modalities that any member uses, text first."""
        used = {modality for member in self.all().values() for modality in member.modalities}
        return [modality for modality in get_args(Modality) if modality in used]


class Objectives(Section):
    """What encoders learn from pairs, each by its weight in the loss; 0 leaves it out."""

    contrast: Weight
    """Which item of the batch belongs to this text, and the other way round (Radford et al. 2021)."""
    match: Weight
    """Whether an item belongs to a text; what is wrong is drawn from what is similar (Li et al. 2021)."""
    masked_words: Weight
    """Which word is hidden, with the other modality in sight (Li et al. 2021)."""

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all are 0; expected one above 0, or `pretrain: null`")
        return self


class Pretrain(Optimisation, OnSeveral):
    """Joint pre-training: before there are members, encoders learn from the training rows that have both modalities.

    No label is looked at. All members start from what it gives, but for those that go on from a champion's. Items are
    compared within each part of a step, and each process: fewer rows there are another, easier task.
    """

    modalities: Annotated[list[Modality], Field(min_length=2, max_length=2)]
    """text and another one."""
    objectives: Objectives
    hidden: Count
    """Width of the joint space."""
    heads: Count
    """Of the attention of words to the other modality's parts; they share `hidden` among them."""
    mask: Share
    """Share of the words that are hidden, for masked_words."""

    @model_validator(mode="after")
    def _pairs_fit(self) -> Self:
        if "text" not in self.modalities or len(set(self.modalities)) != 2:
            raise ValueError(f"modalities: expected text and another one; found {', '.join(self.modalities)}")
        if set(self.learning_rate.named()) != set(self.modalities) or None in self.rates.values():
            raise ValueError(f"learning_rate: expected a number for each of {', '.join(self.modalities)}, and head")
        if self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}; expected a multiple of heads, {self.heads}")
        if bool(self.objectives.masked_words) != bool(self.mask):
            raise ValueError("mask and objectives.masked_words: expected both above 0, or neither")
        if self.augment.image is not None and self.augment.image.mixup:
            raise ValueError("augment.image.mixup: a mixed picture belongs to no text; set it to 0")
        _check_augments(self.augment, self.modalities)
        return self


class Train(Section):
    """What all members share."""

    seed: Annotated[int, Field(ge=0)]
    threads: Count
    """CPU threads of torch. Part of the result: sums in another order give other weights."""
    precision: Literal["fp32", "bf16"]
    """bf16, on a GPU only, computes most of forward and backward in half the bits; weights stay fp32."""
    device: Literal["auto", "cpu"]
    """auto takes a GPU where there is one."""
    processes: Count
    """Processes that share each step's rows, on CPU by gloo, on GPUs one each. Norms over a batch are over each
    process's rows, dropout is drawn anew in each: members with either come out a little different."""
    length_pool: Count | None
    """Steps whose rows are drawn together and dealt to them by length: rows of one step are then padded little, so that
    long texts and recordings train faster. null deals rows without regard to their length."""
    checkpoint_steps: Count | None
    """Steps between checkpoints that a killed training goes on with; each epoch's end has one too. null keeps none.
    No result depends on it."""


class Fitted(Section):
    """Weights that make the validation loss lowest."""

    uniform_pull: Annotated[float, Field(ge=0)]
    """Strength with which they are pulled to equal ones: a guard for small validation splits."""


class Greedy(Section):
    """Weights by greedy selection (Caruana et al. 2004): members are taken one by one, again perhaps."""

    rounds: Count
    """How many are taken; a member weighs as often as it was. Each time it is the one that lowers the validation loss
    most."""


def _kind_of_member_weights(value: Any) -> str:
    if isinstance(value, str):
        return "name"
    keys = _keys_of(value)
    return "greedy" if "rounds" in keys else "fitted"


MemberWeights = Annotated[
    Annotated[Literal["equal"], Tag("name")] | Annotated[Fitted, Tag("fitted")] | Annotated[Greedy, Tag("greedy")],
    Discriminator(_kind_of_member_weights),
]
"""How much each member counts: all alike; as fitted on validation; or as often as greedy selection takes it."""


class Patterns(Section):
    """Members' weights for each pattern of modalities that are there."""

    pull: Positive
    """As many rows as this (words, or labels, where these are scored) of a pattern weigh as much as the weights of
    all, which theirs are drawn towards."""


class Stacking(Section):
    """A logistic regression on members' log-probabilities (Wolpert 1992), as a correction of their pool."""

    penalties: Annotated[list[Positive], Field(min_length=1)]
    """Strengths, against the summed loss, with which the correction is drawn towards none. The one with the lowest log
    loss on held-out validation rows is kept; where none is better than the pool alone, the pool stays as it is."""
    folds: Annotated[int, Field(ge=2)]
    """Parts of the validation groups, each held out once."""


class Combine(Section):
    """How members become one ensemble."""

    pool: Literal["arithmetic", "geometric"]
    """Weighted mean of probabilities, or of log-probabilities."""
    weights: MemberWeights
    patterns: Patterns | None
    """null has one set of weights for all rows."""
    stack: Stacking | None
    """null leaves the pool as it is."""

    @model_validator(mode="after")
    def _patterns_have_weights(self) -> Self:
        if self.patterns is not None and self.weights == "equal":
            raise ValueError("patterns: the weights are equal whatever is there; set patterns to null, or fit weights")
        return self


def _kind_of_member(value: Any) -> str:
    return "expert" if "modality" in _keys_of(value) else "fusion"


AnyMember = Annotated[
    Annotated[Expert, Tag("expert")] | Annotated[Fusion, Tag("fusion")], Discriminator(_kind_of_member)
]
"""An expert, on one `modality`, or a fusion member, on several."""


class Distill(Section):
    """One member that learns from the ensemble what it says of the training rows (Hinton et al. 2015)."""

    student: AnyMember
    """Its recipe, on the modalities of the ensemble."""
    encoders: Encoders | None
    """Its own, smaller ones; null takes those of the members."""
    temperature: Positive
    """Softens the ensemble's answers, and the student's beside them: above 1, what is unlikely counts more."""
    weight: Annotated[float, Field(gt=0, le=1)]
    """Share of the loss that the ensemble's answers are; the rest is the labels'."""

    @model_validator(mode="after")
    def _the_student_can_be_taught(self) -> Self:
        image = self.student.augment.image
        if image is not None and image.mixup:
            raise ValueError("student.augment.image.mixup: the ensemble said nothing of mixed pictures; set it to 0")
        if self.student.warm_start is not None:
            raise ValueError("student.warm_start: a student is trained anew each time; set it to null")
        if self.encoders is not None and isinstance(self.student, Fusion) and self.student.start:
            raise ValueError("student.start: the experts have other encoders than its own; set it to {}")
        return self


def _check_cut(by: str) -> str:
    if by not in CUTS and (not by.startswith("meta.") or by == "meta."):
        raise ValueError(f"expected one of {', '.join(CUTS)}, or meta.COLUMN")
    return by


CUTS = ("label", "modalities", "length", "source")
"""What test rows are cut into slices by, besides columns of meta."""
Cut = Annotated[str, AfterValidator(_check_cut)]
"""label: what is true; modalities: which of them a row holds; length: of its text; source: the batch's name for where
it came from; meta.COLUMN: a column that batches brought along."""


class Disturb(Section):
    """One way in which what is shown may be worse than what was trained on: exactly one of these."""

    blur: Portion | None = None
    """Pictures: standard deviation of a Gaussian, as a share of the side."""
    rotate: Annotated[float, Field(gt=0, le=180)] | None = None
    """Pictures: degrees, to either side."""
    noise: Portion | None = None
    """Pictures: standard deviation of what is added to each channel, as a share of the brightest; recordings: the same,
    as a share of their own standard deviation."""
    typos: Portion | None = None
    """Texts: share of letters that change places with the next one of their word."""
    case: Literal["upper", "lower"] | None = None
    """Texts: all letters are written so."""

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in (self.blur, self.rotate, self.noise, self.typos, self.case)) != 1:
            raise ValueError("set exactly one of blur, rotate, noise, typos and case")
        return self


class Evaluate(Section):
    """Uncertainty of the reported metrics, and how robust they are."""

    resamples: Count
    """Bootstrap resamples of the test split's groups."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Coverage of the intervals."""
    slices: list[Cut]
    """What the test rows are cut by, each part measured by itself, and against the champion."""
    slice_values: Count
    """Slices of one cut, at most: the largest by rows; the rest is one, named other."""
    robustness: dict[Name, Disturb]
    """By name, what test rows are changed by, to see what the ensemble loses; what changes nothing that members use is
    passed over."""
    probe_rows: Count
    """Training rows, spread evenly, for the linear heads that say what there was before fine-tuning."""
    probe_penalty: Positive
    """Weight of half the linear heads' squared weights against their summed loss: scikit-learn's 1 / C."""
    probe_steps: Count
    """Steps of L-BFGS, at most, for fitting a linear head."""

    @model_validator(mode="after")
    def _cuts_differ(self) -> Self:
        if len(set(self.slices)) != len(self.slices):
            raise ValueError("slices: one is listed twice")
        return self


class Explain(Section):
    """What answers rest on, and which labels are in doubt."""

    examples: Annotated[int, Field(ge=0)]
    """Confident wrong answers that are traced back to words, parts of pictures and moments of recordings."""
    steps: Count
    """Of the integral of gradients that does it."""
    grid: Count
    """Parts of a picture's side."""
    review: Annotated[int, Field(ge=0)]
    """Examples with doubtful labels, at most, that are listed for a look."""


class Export(Section):
    """The ONNX bundle."""

    system: System
    """What the bundle holds, and is published; the other, where there is a student, is exported and timed beside it."""
    opset: Annotated[int, Field(ge=18)]
    parity_batch_sizes: Annotated[list[Count], Field(min_length=1)]
    """Batch sizes at which the graph is compared with torch on all test rows."""


class Benchmark(Section):
    """How the bundle is timed."""

    providers: Annotated[list[str], Field(min_length=1)]
    """onnxruntime execution providers in order of preference."""
    batch_sizes: Annotated[list[Count], Field(min_length=1)]
    threads: Count
    """Threads inside one operator."""
    warmup: Count
    """Calls that are not counted."""
    calls: Count
    """Calls that are counted, per batch size."""


class Slices(Section):
    """The parts of the test split in each of which a rule is to hold."""

    by: Cut
    """One of evaluate.slices."""
    min_rows: Count
    """Smaller slices are listed and not judged; where no slice is large enough, the rule refuses."""


QUALITY, SERVING = ("evaluation.", "drift."), ("export.", "benchmark.")
"""What the metrics of the two kinds of rules begin with."""
COMPARED = ("evaluation.ensemble.", "evaluation.student.")
"""What a champion is compared in, and slices have numbers of."""
DRIFTS = ("labels", "modalities", "text_length")
"""Of the whole data set, how far it has moved from what the champion's held."""


class Rule(Section):
    """One condition for the blessing; a rule without a number refuses."""

    name: str
    metric: str
    """Dotted path into evaluation, drift, export or benchmark, for example evaluation.ensemble.accuracy."""
    min: float | None = None
    max: float | None = None
    margin: float | None = None
    """Least allowed difference to the champion on the same rows (higher is better)."""
    gap: Weight | None = None
    """Largest allowed difference between any two slices."""
    confidence: Annotated[float, Field(ge=0.5, lt=1)] | None = None
    """The bound of the one-sided interval with this coverage must meet the rule; null asks the estimate alone. With a
    margin this is a test of non-inferiority. It refuses where the test rows are of fewer than 20 groups, or where one
    of the labels that a metric is a mean over is in fewer than 10."""
    test: Literal["bootstrap", "mcnemar"] = "bootstrap"
    """Of a margin with a confidence. mcnemar: Tango's score interval of the difference of paired shares, which at a
    margin of 0 is McNemar's test, and keeps its level better on few rows; for the accuracy of a classification."""
    power: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Of a margin: probability with which a model as good as the champion has to pass; where the test split is too
    small for that, the rule refuses, as it could not tell."""
    slice: Slices | None = None
    """The rule has to hold in each of these slices, at its confidence in all of them together (Holm 1979)."""
    device: Literal["any", "gpu"] = "any"
    """gpu: the number counts only if a GPU gave it."""

    @property
    def kind(self) -> Kind:
        """What the rule is a rule of."""
        return "serving" if self.metric.startswith(SERVING) else "quality"

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if sum(bound is not None for bound in (self.min, self.max, self.margin, self.gap)) != 1:
            raise ValueError("set exactly one of min, max, margin and gap")
        if not self.metric.startswith((*QUALITY, *SERVING)):
            expected = ", ".join((*QUALITY, *SERVING))
            raise ValueError(f"metric: {self.metric!r} begins with none of {expected}")
        if self.metric.startswith("drift.") and self.metric.removeprefix("drift.") not in DRIFTS:
            raise ValueError(f"metric: {self.metric!r}: drift has {', '.join(DRIFTS)}")
        if self.margin is not None and not self.metric.startswith(COMPARED):
            raise ValueError(
                "a margin compares evaluation.ensemble. metrics, or evaluation.student. ones, with the champion's, not "
                f"{self.metric!r}"
            )
        return self

    @model_validator(mode="after")
    def _has_what_its_bound_goes_by(self) -> Self:
        if self.margin is None and (self.power is not None or self.test != "bootstrap"):
            raise ValueError("power and test are of rules with a margin; remove them")
        if self.test == "mcnemar" and (self.confidence is None or not self.metric.endswith(".accuracy")):
            raise ValueError("test: mcnemar takes a confidence, and the metric accuracy")
        if self.gap is not None and self.slice is None:
            raise ValueError("a gap is one between slices; set slice")
        if self.slice is not None and not self.metric.startswith(COMPARED):
            raise ValueError(f"slice: slices have {' and '.join(COMPARED)} metrics, not {self.metric!r}")
        if self.confidence is not None and not self.metric.startswith("evaluation."):
            raise ValueError(f"confidence: {self.metric!r} has no interval; evaluation. metrics have")
        return self


class Acceptance(Section):
    """Somebody's word that a challenger may be published though it cannot be compared with the champion."""

    champion: Annotated[str, Field(min_length=1)]
    """The version that this holds for, and for no other: with the next champion it is void."""
    by: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]


class Publish(Section):
    """The champion's registration."""

    name: Name
    """Name of the GTO artifact: versions are tagged NAME@v1.0.0."""
    remote: str | None
    """Git remote that branches and tags are pushed to as well, for example origin; null keeps them here.
    A run on uncommitted edits pushes their snapshot too, new files included."""
    accept_incomparable: Acceptance | None
    """A human decision: where the champion has other labels, modalities or another task, and margins to it cannot be
    found, they do not refuse. It goes into verdict.json and the report. null as long as nobody took one."""


def _check_reads_words(name: str, member: Member) -> None:
    """Refuse a member that could not tag words, or that would be shown others than its tags are for."""
    if "text" not in member.modalities:
        raise ValueError(f"member {name} is on {' and '.join(member.modalities)}; for ner each member must use text")
    if member.augment.text is not None:
        raise ValueError(
            f"augment.text of member {name}: changed texts have other words than their tags are for; for ner null"
        )
    if member.augment.image is not None and member.augment.image.mixup:
        raise ValueError(f"augment.image.mixup of member {name}: words' tags cannot be mixed; for ner 0")


class Params(Section):
    """The whole of params.yaml."""

    task: Task
    validate_: Annotated[Validate, Field(alias="validate")]
    prepare: Prepare
    encoders: Encoders
    train: Train
    pretrain: Pretrain | None
    members: Members
    combine: Combine
    distill: Distill | None
    """null trains no student."""
    evaluate: Evaluate
    explain: Explain
    export: Export
    benchmark: Benchmark
    gate: list[Rule]
    publish: Publish

    @property
    def recipes(self) -> dict[str, Member]:
        """Recipes of all that is trained, by the name that errors give it."""
        student: dict[str, Member] = {} if self.distill is None else {"distill.student": self.distill.student}
        return self.members.all() | student

    @model_validator(mode="after")
    def _the_student_fits_the_ensemble(self) -> Self:
        if self.distill is None:
            if self.export.system == "student":
                raise ValueError("export.system: there is no student; set distill, or take ensemble")
            return self
        student, encoders = self.distill.student, self.distill.encoders or self.encoders
        if set(student.modalities) != set(self.members.modalities()):
            raise ValueError(
                f"distill.student: on {' and '.join(student.modalities)}; expected what the ensemble is on, "
                f"{' and '.join(self.members.modalities())}, for it is to answer the same rows"
            )
        if without := [name for name in student.modalities if getattr(encoders, name) is None]:
            raise ValueError(f"distill.encoders.{without[0]}: null, but the student uses it; set it")
        for modality, name in student.start.items() if isinstance(student, Fusion) else ():
            if name not in self.members.experts_on(modality):
                raise ValueError(f"distill.student.start.{modality}: {name!r} is no expert on {modality}")
        return self

    @model_validator(mode="after")
    def _encoders_take_all_pictures(self) -> Self:
        most = self.validate_.max_pictures
        own = None if self.distill is None else self.distill.encoders
        for where, encoders in {"encoders": self.encoders, "distill.encoders": own}.items():
            if most > 1 and encoders is not None and encoders.image is not None and not encoders.image.several:
                raise ValueError(
                    f"{where}.image.several: false, but rows may have {most} pictures; set it to true, or "
                    "validate.max_pictures to 1"
                )
        return self

    @model_validator(mode="after")
    def _rules_judge_what_is_published(self) -> Self:
        other = OTHER[self.export.system]
        for rule in self.gate:
            if rule.metric.startswith(f"evaluation.{other}."):
                raise ValueError(
                    f"gate: rule {rule.name!r} judges the {other}, but export.system is {self.export.system}: "
                    f"set its metric to evaluation.{self.export.system}.{rule.metric.rpartition('.')[2]}"
                )
        return self

    @model_validator(mode="after")
    def _rules_find_their_slices(self) -> Self:
        for rule in self.gate:
            if rule.slice is not None and rule.slice.by not in self.evaluate.slices:
                raise ValueError(
                    f"gate: rule {rule.name!r} goes by slices of {rule.slice.by!r}, which evaluate.slices does not "
                    "list: add it there"
                )
            if rule.test == "mcnemar" and self.task.kind != "classification":
                raise ValueError(f"gate: rule {rule.name!r}: test: mcnemar is for classification; take bootstrap")
        return self

    @model_validator(mode="after")
    def _class_weights_fit_the_labels(self) -> Self:
        for name, member in self.recipes.items():
            expected = {*self.task.labels, *(["O"] if self.task.kind == "ner" else [])}
            if isinstance(member.class_weights, dict) and set(member.class_weights) != expected:
                odd = sorted(set(member.class_weights) ^ expected)
                raise ValueError(f"class_weights of member {name}: expected one per label; {odd[0]!r} does not fit")
        return self

    @model_validator(mode="after")
    def _pretraining_has_encoders(self) -> Self:
        for modality in [] if self.pretrain is None else self.pretrain.modalities:
            if modality not in self.members.modalities():
                raise ValueError(f"pretrain.modalities: no member uses {modality}")
        return self

    @model_validator(mode="after")
    def _members_have_encoders(self) -> Self:
        for modality in self.members.modalities():
            if getattr(self.encoders, modality) is None:
                others = [name for name, member in self.members.fusions.items() if modality in member.modalities]
                user = [*self.members.experts_on(modality), *others][0]
                raise ValueError(f"encoders.{modality}: null, but {user} uses it; set it")
        return self

    @model_validator(mode="after")
    def _members_fit_the_task(self) -> Self:
        for name, member in self.recipes.items():
            if self.task.kind == "ner":
                _check_reads_words(name, member)
            elif member.loss == "crf":
                raise ValueError(f"loss of member {name}: crf is of sequences of tags; {self.task.kind} has none")
            elif missing := [each for each in member.modalities if not self.members.experts_on(each)]:
                raise ValueError(
                    f"members.fusions.{name}.modalities: there is no expert on {missing[0]} to compare with"
                )
        return self


class Range(Section):
    """Numbers that a search tries."""

    low: int | float
    high: int | float
    """Whole numbers are tried where both ends are written as such."""
    log: bool
    """Try as many between 1 and 10 as between 10 and 100."""

    @property
    def kind(self) -> type[int] | type[float]:
        """What is tried."""
        return int if isinstance(self.low, int) and isinstance(self.high, int) else float

    @model_validator(mode="after")
    def _ends_fit(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low is {self.low}; expected less than high, {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low is {self.low}; with log: true it must be above 0")
        return self


class Choices(Section):
    """Values that a search tries."""

    choices: Annotated[list[Any], Field(min_length=2)]
    """Whatever params.yaml may have at the key."""


def _kind_of_range(value: Any) -> str:
    return "choices" if "choices" in _keys_of(value) else "range"


class Search(Section):
    """A file of `fuseline tune`: which numbers of a member's training to try. Not a part of params.yaml."""

    member: Name
    """Whose training is tried."""
    metric: Literal["loss", "score"]
    """What is wanted on validation: a low loss, or much of the metric by which systems are compared."""
    startup_trials: Count
    """Trials that are drawn at random; none is pruned before as many have come to their end."""
    warmup_epochs: Annotated[int, Field(ge=0)]
    """Epochs of each trial before it may be pruned: where it is worse than the median of the others was."""
    space: Annotated[
        dict[str, Annotated[Annotated[Range, Tag("range")] | Annotated[Choices, Tag("choices")],
                            Discriminator(_kind_of_range)]],
        Field(min_length=1),
    ]  # fmt: skip
    """Dotted keys of params.yaml, and what is tried there."""


class _UniqueKeys(yaml.SafeLoader):
    """A key given twice is an error, not the last one's silent victory."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(
                    f"{node.start_mark.name}: key {key!r} is given twice, near line {node.start_mark.line + 1}"
                )
        return super().construct_mapping(node, deep)


class _PublishAlone(Section):
    """params.yaml as far as a rollback goes: nobody who is half-way through an edit elsewhere is kept from it."""

    model_config = ConfigDict(extra="ignore")

    publish: Publish


def load(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        ConfigError: naming every wrong key at once, with its value and what was expected.
    """
    return check(path, read(path))


def read(path: Path) -> Any:
    """Read a YAML file, unchecked but for keys given twice.

    Raises:
        ConfigError: it cannot be read.
    """
    with _reader(path) as reader:
        return reader.get_single_data()


def load_search(path: Path) -> Search:
    """Read and check a file of `fuseline tune`; raises as load does."""
    return _check(path, Search, read(path))


def check(path: Path, document: Any) -> Params:
    """Check what stands, or would stand, in params.yaml; raises as load does."""
    return _check(path, Params, document)


def load_publish(path: Path) -> Publish:
    """Read and check the section `publish` of params.yaml, whatever the other sections say.

    Raises:
        ConfigError: naming every wrong key of that section; or the file is no YAML.
    """
    with _reader(path) as reader:
        node = reader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            node.value = [pair for pair in node.value if pair[0].value == "publish"]
        document = None if node is None else reader.construct_document(node)
    return _check(path, _PublishAlone, document).publish


@contextmanager
def _reader(path: Path) -> Iterator[_UniqueKeys]:
    try:
        with path.open(encoding="utf-8") as file:
            yield _UniqueKeys(file)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from error


def _check(path: Path, kind: type[Whole], document: Any) -> Whole:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(one)}" for one in error.errors())
        raise ConfigError(f"{path}: {error.error_count()} wrong\n{lines}") from error


def _explain(error: ErrorDetails) -> str:
    where = ".".join(map(str, error["loc"])) or "the document"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key{_likely_slip(error['loc'])}; remove it"
    if error["type"] == "missing":
        return f"{where}: missing; add it"
    value = "" if isinstance(error["input"], dict) else f" (found {error['input']!r})"
    if isinstance(error["input"], bool) and error["type"] == "string_type":
        value += "; YAML reads yes, no, on and off as truth values: put them in quotes"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}{value}"


def _likely_slip(loc: tuple[int | str, ...]) -> str:
    known = {field.alias or name for section in _sections(Section) for name, field in section.model_fields.items()}
    close = difflib.get_close_matches(str(loc[-1]), sorted(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _sections(root: type[Section]) -> list[type[Section]]:
    return [each for child in root.__subclasses__() for each in (child, *_sections(child))]
