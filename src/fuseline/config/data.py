"""The problem, and the rows that it is learnt from: sections task, validate, prepare."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fuseline.config.base import Count, Positive, Section, Share


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
