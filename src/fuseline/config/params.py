"""The whole of params.yaml, and what sections ask of each other."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fuseline.config.base import Section
from fuseline.config.combine import Combine, Distill
from fuseline.config.data import Prepare, Task, Validate
from fuseline.config.encoders import Encoders
from fuseline.config.evaluation import Evaluate, Explain
from fuseline.config.gate import Publish, Rule
from fuseline.config.members import Fusion, Member, Members
from fuseline.config.serving import Benchmark, Export, Rehearse
from fuseline.config.training import Pretrain, Train
from fuseline.records import OTHER


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
    rehearse: Rehearse
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
