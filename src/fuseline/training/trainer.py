"""Training of one member by transformers.Trainer: our part is optimiser groups, metrics and progress."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
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
from transformers.utils import logging as transformers_logging

from fuseline.config import Decayed, Member, Train
from fuseline.errors import ConfigError
from fuseline.models.member import FusionModel
from fuseline.progress import Progress, say
from fuseline.records import Epoch
from fuseline.training.examples import Collator, Examples
from fuseline.training.layers import depths


def fit(
    name: str, model: FusionModel, recipe: Member, common: Train, train: Examples, val: Examples,
    collate: Collator, collate_val: Collator,
) -> list[Epoch]:  # fmt: skip
    """Train `model` in place, as `recipe` says.

    With `patience`, the weights with the lowest validation loss are kept, else those of the last epoch.

    Returns:
        The learning curve.
    """
    with tempfile.TemporaryDirectory(prefix="fuseline-train-") as scratch:
        arguments = build_arguments(recipe, common, Path(scratch))
        trainer = TwoCollators(
            model=model, args=arguments, train_dataset=train, eval_dataset=val, data_collator=collate,
            compute_metrics=_accuracy, callbacks=[_Watcher(name, recipe.epochs)],
            optimizers=(build_optimizer(model, recipe), None),
        )  # fmt: skip
        trainer.collate_val = collate_val
        trainer.remove_callback(PrinterCallback)
        if recipe.patience is not None:
            trainer.add_callback(EarlyStoppingCallback(recipe.patience))
        trainer.train()
        return _history(trainer.state.log_history)


class TwoCollators(Trainer):
    """A Trainer whose validation batches are not augmented, smoothed or mixed."""

    collate_val: Collator

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Build the loader with `collate_val`."""
        collate, self.data_collator = self.data_collator, self.collate_val
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = collate


def set_up(common: Train) -> None:
    """Make the same machine give the same weights, and the libraries leave the terminal to us."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(common.threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs time


def build_arguments(recipe: Member, common: Train, scratch: Path) -> TrainingArguments:
    """Translate params into Trainer's own words.

    Raises:
        ConfigError: bf16 is asked for without a GPU. On CPU (torch 2.15) the same seed then gave other
            weights from run to run, and NaN in one of three.
    """
    on_gpu = common.device == "auto" and torch.cuda.is_available()
    if common.precision == "bf16" and not on_gpu:
        raise ConfigError("train.precision: bf16 needs a GPU, and none is used here; set it to fp32")
    return TrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=64,
        lr_scheduler_type=recipe.schedule,
        warmup_steps=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        seed=common.seed,
        data_seed=common.seed,
        use_cpu=not on_gpu,
        bf16=common.precision == "bf16",
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no" if recipe.patience is None else "best",
        metric_for_best_model=None if recipe.patience is None else "loss",
        greater_is_better=False,
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=recipe.patience is not None,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def build_optimizer(model: FusionModel, recipe: Member) -> torch.optim.Optimizer:
    """Build AdamW over what is trained, with learning rates per part and layer; no decay on biases, norms, absences."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    rates = rates_by_name(model, recipe)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = recipe.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rates.get(name, recipe.learning_rate.head), decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()], fused=True
    )


def rates_by_name(model: FusionModel, recipe: Member) -> dict[str, float]:
    """Return the peak learning rate of each encoder parameter that has one, by its name in the model.

    Layer-wise decay: Howard and Ruder 2018 (discriminative fine-tuning), by a factor from layer to layer.
    """
    found: dict[str, float] = {}
    for modality, rate in recipe.rates.items():
        encoder = model.encoders[modality]
        if isinstance(rate, Decayed):
            depth, layers = depths(encoder.backbone)  # type: ignore[arg-type]
            own = {f"backbone.{name}": rate.top * rate.decay ** max(0, layers - at) for name, at in depth.items()}
        else:
            own = {} if rate is None else {name: rate for name, _ in encoder.named_parameters()}
        found |= {f"encoders.{modality}.{name}": each for name, each in own.items()}
    return found


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    hits = np.argmax(prediction.predictions, axis=1) == np.argmax(prediction.label_ids, axis=1)
    return {"accuracy": float(hits.mean())}


def _history(log: list[dict[str, float]]) -> list[Epoch]:
    """Join Trainer's two log entries of each epoch."""
    losses = {round(entry["epoch"]): entry["loss"] for entry in log if "loss" in entry}
    return [
        Epoch(
            epoch=round(entry["epoch"]), train_loss=losses[round(entry["epoch"])],
            val_loss=entry["eval_loss"], val_accuracy=entry["eval_accuracy"],
        )
        for entry in log
        if "eval_loss" in entry and round(entry["epoch"]) in losses
    ]  # fmt: skip


class _Watcher(TrainerCallback):
    """Tells stage, epoch, step, loss and time left."""

    def __init__(self, name: str, epochs: int) -> None:
        self.name, self.epochs = name, epochs
        self.progress = Progress(f"train {name}", 1)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress = Progress(f"train {self.name}", state.max_steps)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        epoch = min(int(state.epoch or 0) + 1, self.epochs)
        self.progress.at(state.global_step, f"epoch {epoch}/{self.epochs} · step {state.global_step}/{state.max_steps}")

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl,
        metrics: dict[str, float] | None = None, **_: Any,
    ) -> None:  # fmt: skip
        assert metrics is not None
        say(
            f"train {self.name}: epoch {round(state.epoch or 0)}/{self.epochs}, "
            f"val loss {metrics['eval_loss']:.3f}, val accuracy {metrics['eval_accuracy']:.3f}"
        )
