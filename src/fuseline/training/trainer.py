"""Training of one member by transformers.Trainer: our part is optimiser groups, metrics and progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import EvalLoopOutput
from transformers.utils import logging as transformers_logging

from fuseline.config import SGD, Decayed, Member, Polynomial, Pretrain, Restarts, Train
from fuseline.errors import ConfigError
from fuseline.models.joint import JointModel
from fuseline.models.member import IGNORED, FusionModel
from fuseline.progress import Progress, say
from fuseline.records import Decoding, Epoch, Transitions
from fuseline.tasks.base import Task
from fuseline.tasks.ner import Ner
from fuseline.training import resume
from fuseline.training.examples import Collator, Examples
from fuseline.training.layers import depths
from fuseline.training.lessons import Lessons
from fuseline.training.predict import in_order_of_length
from fuseline.training.steps import Replay, Steps
from fuseline.training.targets import TrainingCollator
from fuseline.training.trackers import build_trackers


class Score(NamedTuple):
    """How validation is scored, besides its loss."""

    name: str
    of: Callable[[NDArray[Any], NDArray[Any]], float]
    """From the model's logits and the labels of all rows."""


Trained = FusionModel | JointModel


def fit(
    name: str, model: Trained, recipe: Member | Pretrain, score: Score, common: Train, train: Examples, val: Examples,
    collate: TrainingCollator | Collator, collate_val: Collator, folder: Path, replay: Replay | None = None,
    lessons: Lessons | None = None, callbacks: Sequence[TrainerCallback] = (),
) -> list[Epoch]:  # fmt: skip
    """Train `model` in place, as `recipe` says, and go on with the newest checkpoint in `folder`.

    With `patience`, the weights with the lowest validation loss are kept, else those of the last epoch.

    Args:
        name: what progress is told of.
        folder: for checkpoints; read and written by all processes that train together.
        replay: training rows of which each epoch takes a share only.
        lessons: what a student is taught; `train` holds it row by row.
        callbacks: see the training too.

    Returns:
        The learning curve.
    """
    trainer = MemberTrainer(
        model=model, args=build_arguments(recipe, common, folder, name), train_dataset=train, eval_dataset=val,
        data_collator=collate, compute_metrics=partial(_score, score),
        optimizers=(build_optimizer(model, recipe), None),
    )  # fmt: skip
    trainer.prepare(collate_val, recipe.batch_size, common.length_pool, replay)
    trainer.lessons = lessons
    checkpoint = agree(resume.latest(folder) if trainer.is_world_process_zero() else None)
    if checkpoint is not None and (state := resume.finished(checkpoint)) is not None:
        resume.load_result(model, checkpoint, state)
        return curve_of(state.log_history, score.name)
    trainer.remove_callback(PrinterCallback)
    for callback in callbacks:
        trainer.add_callback(callback)
    if recipe.patience is not None:
        trainer.add_callback(EarlyStoppingCallback(recipe.patience))
    trainer.add_callback(_Epochs(trainer))
    if common.checkpoint_steps is not None:
        trainer.add_callback(_Keeper(trainer, common.checkpoint_steps, checkpoint))
    if trainer.is_world_process_zero():
        trainer.add_callback(_Watcher(name, recipe.epochs, score.name))
        for tracker in build_trackers(name):
            trainer.add_callback(tracker)
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return curve_of(trainer.state.log_history, score.name)


def validate(
    model: FusionModel, recipe: Member, score: Score, common: Train, train: Examples, val: Examples, collate: Collator,
    folder: Path,
) -> tuple[float, float]:  # fmt: skip
    """Return score and loss on validation, as they are found after each epoch; arguments as in `fit`."""
    trainer = MemberTrainer(
        model=model, args=build_arguments(recipe, common, folder), train_dataset=train, eval_dataset=val,
        data_collator=collate, compute_metrics=partial(_score, score),
    )  # fmt: skip
    trainer.prepare(collate, recipe.batch_size, None)
    trainer.remove_callback(PrinterCallback)
    found = trainer.evaluate()
    return found[f"eval_{score.name}"], found["eval_loss"]


def is_first() -> bool:
    """Say whether this process is the one that writes, of those that train together."""
    return int(os.environ.get("RANK", "0")) == 0


def agree(found: Path | None) -> Path | None:
    """Return what the first process found, in all that train together."""
    agreed: Path | None = broadcast_object_list([found])[0]
    return agreed


class MemberTrainer(Trainer):
    """A Trainer whose steps hold the same rows in any number of processes and parts.

    Validation batches are not augmented, smoothed, weighted or mixed.
    """

    collate_val: Collator
    steps: Steps
    lessons: Lessons | None = None

    def prepare(
        self, collate_val: Collator, batch_size: int, length_pool: int | None, replay: Replay | None = None
    ) -> None:
        """Set what validation batches are made by, which rows make a step, and which are replayed."""
        self.collate_val = collate_val
        lengths_N = np.zeros(len(self.rows)) if length_pool is None else self.rows.lengths(collate_val.padded)
        self.steps = Steps(
            lengths_N, batch_size, self.args.seed, self.args.gradient_accumulation_steps,
            self.args.process_index, self.args.world_size, length_pool, replay,
        )  # fmt: skip
        self.model_accepts_loss_kwargs = True  # has the rows of all parts counted, for compute_loss
        self.loss_is_scaled_for_ga = True

    @property
    def rows(self) -> Examples:
        """The training examples."""
        return cast(Examples, self.train_dataset)

    def get_train_dataloader(self) -> Any:
        """Build the loader of this process's share of each step."""
        return DataLoader(
            self.rows, batch_sampler=self.steps, collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )  # fmt: skip

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Build the loader with `collate_val`."""
        collate, self.data_collator = self.data_collator, self.collate_val
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collate

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Take rows of near length together; the order counts for nothing."""
        return in_order_of_length(eval_dataset, self.collate_val)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Weigh a part's mean by its share of the step's units: the sum over parts is then the mean over the step.

        Times the number of processes, over which gradients are averaged.
        """
        soft = inputs.pop("soft", None)
        outputs = model(**inputs)
        loss = outputs["loss"]
        if soft is not None:
            assert self.lessons is not None
            loss = self.lessons.blend(loss, outputs["logits"], soft, inputs["labels"])
        if model.training:
            share = 1.0 if num_items_in_batch is None else (inputs["labels"] != IGNORED).sum() / num_items_in_batch
            loss = loss * share * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def evaluation_loop(self, *args: Any, **options: Any) -> EvalLoopOutput:
        """Validate; a member's loss is a mean over the units of all rows, in whatever batches and processes they were.

        Trainer's own is a mean over batches, and counts twice what fills up the last ones of several processes.
        """
        found = super().evaluation_loop(*args, **options)
        if isinstance(self.model, FusionModel):
            logits, labels = (torch.from_numpy(np.asarray(each)) for each in (found.predictions, found.label_ids))
            with torch.inference_mode():
                loss = self.model.loss(logits.double().to(self.model.device), labels.to(self.model.device))
            assert found.metrics is not None
            found.metrics["eval_loss"] = float(loss)
        return found


def set_up(common: Train) -> None:
    """Make the same machine give the same weights, and the libraries leave the terminal to us."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(common.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time


def find_device(common: Train) -> str:
    """Return what members are trained on: a GPU if there is one and params allow it."""
    found = common.device == "auto" and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if found else "cpu"


def build_arguments(
    recipe: Member | Pretrain, common: Train, scratch: Path, name: str | None = None
) -> TrainingArguments:
    """Translate params into Trainer's own words.

    Args:
        name: what trackers call the training.

    Raises:
        ConfigError: bf16 is asked for without a GPU. On CPU (torch 2.15) the same seed then gave other
            weights from run to run, and NaN in one of three.
    """
    on_gpu = find_device(common) != "cpu"
    if common.precision == "bf16" and not on_gpu:
        raise ConfigError("train.precision: bf16 needs a GPU, and none is used here; set it to fp32")
    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=max(1, recipe.batch_size // recipe.accumulation),
        gradient_accumulation_steps=recipe.accumulation,
        per_device_eval_batch_size=64,
        **_schedule(recipe),
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        seed=common.seed,
        data_seed=common.seed,
        use_cpu=not on_gpu,
        bf16=common.precision == "bf16",
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="epoch" if common.checkpoint_steps is not None else "no" if recipe.patience is None else "best",
        metric_for_best_model=None if recipe.patience is None else "loss",
        greater_is_better=False,
        logging_nan_inf_filter=False,  # training that diverged must show
        save_only_model=common.checkpoint_steps is None,
        save_total_limit=2,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=recipe.patience is not None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],  # trackers.py
        run_name=name,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_backend="gloo" if "RANK" in os.environ and not on_gpu else None,
    )


def _schedule(recipe: Member | Pretrain) -> dict[str, Any]:
    """Name the schedule in transformers' words."""
    if isinstance(recipe.schedule, Restarts):
        return {
            "lr_scheduler_type": "cosine_with_restarts",
            "lr_scheduler_kwargs": {"num_cycles": recipe.schedule.cycles},
        }
    if isinstance(recipe.schedule, Polynomial):
        # transformers counts its last rate in shares of the optimizer's default, which is the head's
        end = recipe.schedule.end * recipe.learning_rate.head
        return {
            "lr_scheduler_type": "polynomial",
            "lr_scheduler_kwargs": {"power": recipe.schedule.power, "lr_end": end},
        }
    return {"lr_scheduler_type": recipe.schedule}


def build_optimizer(model: Trained, recipe: Member | Pretrain) -> torch.optim.Optimizer:
    """Build it over what is trained, with learning rates per part and layer; no decay on biases, norms, absences."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    rates = rates_by_name(model, recipe)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates.get(name, recipe.learning_rate.head), decay), []).append(parameter)
    listed = [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]
    kind, head = recipe.optimizer, recipe.learning_rate.head
    if isinstance(kind, SGD):
        return torch.optim.SGD(listed, lr=head, momentum=kind.momentum, nesterov=kind.nesterov, fused=True)
    return torch.optim.AdamW(listed, lr=head, betas=kind.betas, eps=kind.eps, fused=True)


def rates_by_name(model: Trained, recipe: Member | Pretrain) -> dict[str, float]:
    """Return the peak learning rate of each encoder parameter that has one, by its name in the model.

    What a text encoder has for layout begins with nothing, as the head does, and learns at the head's rate.

    Layer-wise decay: Howard and Ruder 2018 (discriminative fine-tuning), by a factor from layer to layer.
    """
    found: dict[str, float] = {}
    for modality, rate in recipe.rates.items():
        encoder = model.encoders[modality]
        if isinstance(rate, Decayed):
            depth, layers = depths(encoder.backbone)  # type: ignore[arg-type]
            own = {f"backbone.{name}": rate.top * rate.decay ** max(0, layers - at) for name, at in depth.items()}
        else:
            named = [name for name, _ in encoder.named_parameters() if not name.startswith("layout.")]
            own = {} if rate is None else dict.fromkeys(named, rate)
        found |= {f"encoders.{modality}.{name}": each for name, each in own.items()}
    return found


def score_by(task: Task, model: FusionModel) -> Score:
    """Score validation by the headline metric; words without a token are left out."""

    def headline(logits: NDArray[Any], labels: NDArray[Any]) -> float:
        there = labels[..., 0] != IGNORED
        classes = labels.argmax(-1)
        found = [classes[row, there[row]].tolist() for row in range(len(labels))] if task.words else classes
        probs_UC = softmax(logits[there].astype(np.float64), axis=1)
        learned = task.decided(Decoding(transitions=read_transitions(model, task)))
        return learned.score(probs_UC, task.assume_truth(found))[task.headline]

    return Score(task.headline, headline)


def read_transitions(model: FusionModel, task: Task) -> Transitions | None:
    """Return the scores of steps between tags that a member has learned, if it learns any."""
    if model.crf is None or not isinstance(task, Ner):
        return None
    start, steps, end = (scores.detach().double().cpu().tolist() for scores in model.crf.parameters())
    return task.constrain(Transitions(start=start, steps=steps, end=end))


def _score(score: Score, prediction: EvalPrediction) -> dict[str, float]:
    return {score.name: score.of(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))}


def curve_of(log: list[dict[str, float]], metric: str) -> list[Epoch]:
    """Join Trainer's two log entries of each epoch."""
    losses = {round(entry["epoch"]): entry["loss"] for entry in log if "loss" in entry}
    return [
        Epoch(
            epoch=round(entry["epoch"]), train_loss=losses[round(entry["epoch"])],
            val_loss=entry["eval_loss"], val_score=entry[f"eval_{metric}"],
        )
        for entry in log
        if "eval_loss" in entry and round(entry["epoch"]) in losses
    ]  # fmt: skip


class _Epochs(TrainerCallback):
    """Tells sampler and data set which epoch it is: what they draw follows from it."""

    def __init__(self, trainer: MemberTrainer) -> None:
        self._trainer = trainer

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._trainer.steps.epoch = self._trainer.rows.epoch = int(state.epoch or 0)


class _Keeper(TrainerCallback):
    """Keeps checkpoints that a killed training can go on with: at each epoch's end, and every few steps between."""

    def __init__(self, trainer: MemberTrainer, every: int, start: Path | None) -> None:
        self._trainer, self._every, self._start = trainer, every, start

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._start is not None:
            loss, logged_at = resume.read_mark(self._start)
            self._trainer._tr_loss += loss
            self._trainer._globalstep_last_logged = logged_at
            say(f"training goes on after step {state.global_step} of {state.max_steps}")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        at_end = state.epoch == round(state.epoch or 0)  # the epoch's own checkpoint follows, after validation
        if state.global_step % self._every == 0 and not at_end:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            resume.mark(checkpoint, float(self._trainer._tr_loss), self._trainer._globalstep_last_logged)


class _Watcher(TrainerCallback):
    """Tells stage, epoch, step, loss and time left."""

    def __init__(self, name: str, epochs: int, metric: str) -> None:
        self.name, self.epochs, self.metric = name, epochs, metric
        self.progress = Progress(name, 1)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress = Progress(self.name, state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = min(int(state.epoch or 0) + 1, self.epochs)
        self.progress.at(state.global_step, f"epoch {epoch}/{self.epochs} · step {state.global_step}/{state.max_steps}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        metrics: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        assert metrics is not None
        say(
            f"{self.name}: epoch {round(state.epoch or 0)}/{self.epochs}, "
            f"val loss {metrics['eval_loss']:.3f}, val {self.metric} {metrics[f'eval_{self.metric}']:.3f}"
        )
