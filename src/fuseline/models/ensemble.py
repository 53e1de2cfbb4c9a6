"""The ensemble: several members, one distribution.

Shape letters: B batch, W units of a row, U units of all rows (rows themselves, words, or labels), M members, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from fuseline.inputs import READERS, inputs_of, own_inputs
from fuseline.inputs.base import Input, flag
from fuseline.models.combine import Combiner, number_patterns, usable
from fuseline.models.encoders.base import Encoded
from fuseline.models.member import FusionModel, run_encoder
from fuseline.models.units import repeat

Owner = tuple[int, str]
"""Number of a member, and a modality of its."""


class Ensemble(nn.Module):
    """Combine members to calibrated probabilities; one graph when exported.

    An encoder that several members share to the last weight, as frozen ones do, runs once for all of them.
    """

    def __init__(self, members: Mapping[str, FusionModel], combiner: Combiner) -> None:
        super().__init__()
        self.names = list(members)
        self.members = nn.ModuleList(members.values())  # a ModuleDict forbids names such as `train`
        self.combiner = combiner.float()
        self.owners = find_owners(list(members.values()))

    @property
    def modalities(self) -> list[str]:
        """Those that any member uses."""
        used = {name for member in self.members for name in member.config.modalities}  # type: ignore[union-attr]
        return [name for name in READERS if name in used]

    @property
    def words(self) -> bool:
        """Whether words are scored, not rows; members are alike in this."""
        return bool(self.members[0].config.words)  # type: ignore[union-attr]

    @property
    def several(self) -> bool:
        """Whether rows may have several pictures; members share their encoders, and are alike in this."""
        encoders = [member.config.encoders for member in self.members]  # type: ignore[union-attr]
        return any(each.get("image", {}).get("several", False) for each in encoders)  # type: ignore[union-attr, operator]

    @property
    def layout(self) -> bool:
        """Whether any member sees where tokens stand in the picture."""
        return any(member.config.layout for member in self.members)

    @property
    def inputs(self) -> dict[str, Input]:
        """What it takes, by name."""
        return inputs_of(self.modalities, self.words, self.several, self.layout)

    def forward(
        self, encoded: Mapping[Owner, Encoded] | None = None, **inputs: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Score every class; inputs as in FusionModel, of all modalities that any member uses.

        Args:
            encoded: what `encode` gave for the same inputs, whichever of their flags.

        Returns:
            probabilities [B, C], logits [B, C], and the members' own probabilities [B, M, C]; where words or labels are
            scored [B, W, C], [B, W, C], [B, W, M, C]; those of words that are not there say nothing.
        """
        encoded = self._encode_shared(inputs) if encoded is None else encoded
        logits = [
            member(encoded={name: encoded[at, name] for at, name in own if (at, name) in encoded}, **inputs)["logits"]
            for member, own in zip(self.members, self.owners, strict=True)
        ]
        usable_UM = usable(
            [member.config.modalities for member in self.members],  # type: ignore[union-attr, misc]
            {name: inputs[flag(name)] for name in self.modalities},
        )
        pattern_U = number_patterns([inputs[flag(name)] for name in self.modalities])
        rows = logits[0].shape[:-1]
        if several := len(rows) > 1:
            logits = [each.flatten(0, 1) for each in logits]
            usable_UM, pattern_U = (repeat(each, rows[1]) for each in (usable_UM, pattern_U))
        log_probs_UMC = torch.stack([each.log_softmax(1) for each in logits], dim=1)
        logits_UC = self.combiner(log_probs_UMC, usable_UM, pattern_U)
        outputs = logits_UC.softmax(1), logits_UC, log_probs_UMC.exp()
        if several:
            probs, scores, members = (each.unflatten(0, rows) for each in outputs)
            return probs, scores, members
        return outputs

    def encode(self, only: Container[str] | None = None, **inputs: Tensor) -> dict[Owner, Encoded]:
        """Run each encoder once, to ask about the same rows several times, whichever of their flags are set.

        What a member with layout makes of a text is a matter of the picture's flag too: that it finds anew each time.

        Args:
            only: modalities whose encoders run; null runs all.
        """
        owners = {owner for own in self.owners for owner in own if only is None or owner[1] in only}
        placed = {(at, "text") for at, member in enumerate(self.members) if member.config.layout}
        return self._encode(owners - placed, inputs)

    def _encode_shared(self, inputs: Mapping[str, Tensor]) -> dict[Owner, Encoded]:
        """Run each encoder once that several members have."""
        counts = Counter(owner for own in self.owners for owner in own)
        return self._encode([owner for owner, members in counts.items() if members > 1], inputs)

    def _encode(self, owners: Iterable[Owner], inputs: Mapping[str, Tensor]) -> dict[Owner, Encoded]:
        return {
            (at, name): run_encoder(self.members[at].encoders[name], own_inputs(name, inputs))  # type: ignore[index, arg-type]
            for at, name in owners
        }


def find_owners(members: Sequence[FusionModel]) -> list[list[Owner]]:
    """Return for each member, by modality, the first member that has the very same encoder."""
    owners: list[list[Owner]] = []
    for number, member in enumerate(members):
        own: list[Owner] = []
        for name in member.config.modalities:
            earlier = (at for at, name_there in chain(*owners) if name_there == name)
            same = (at for at in earlier if _are_same(members[at], member, name))
            own.append((next(same, number), name))
        owners.append(own)
    return owners


def _are_same(one: FusionModel, other: FusionModel, modality: str) -> bool:
    if one.config.encoders[modality] != other.config.encoders[modality]:
        return False
    if modality == "text" and one.config.layout:  # what it gives is a matter of the picture too
        return False
    first, second = (member.encoders[modality].state_dict() for member in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
