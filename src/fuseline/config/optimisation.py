"""How weights are trained: optimizers, schedules, losses, what of an encoder is tuned, and at which rates."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from fuseline.config.augment import Augment
from fuseline.config.base import Count, Modality, Positive, Section, Share, keys_of


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
    keys = keys_of(value)
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


def check_rates(rates: dict[str, tuple[str, Any, Any]]) -> None:
    """Refuse a rate without effect, and a tuning without a rate; names lead to (key of the rate, tuning, rate)."""
    for where, (key, tuning, rate) in rates.items():
        if (tuning == "frozen") != (rate is None):
            raise ValueError(
                f"{where} is {'frozen' if tuning == 'frozen' else 'trained'}, but {key} is "
                f"{'null' if rate is None else 'not null'}; an encoder has a learning rate unless it is frozen"
            )


def check_augments(augment: Augment, modalities: list[Modality]) -> None:
    """Refuse changes of what the member does not use."""
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
