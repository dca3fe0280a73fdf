"""The vocabulary of a model, read from its ``card.json``: the targets, findings and regions that it was trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unibiomed.tasks import read_class
from unibiomed.terminology import can_show, get_target
from unibiomed.terminology.spelling import normalize

__all__ = ["ModelVocabulary"]

MAX_BYTES = 4_000_000


class ModelVocabulary:
    """Names that a model was trained with. An empty vocabulary means that they are not known.

    Parameters
    ----------
    targets : mapping of str to sequence of str, optional
        Names of the targets that the model can segment, each with its synonyms.
    findings : mapping of str to sequence of str, optional
        Modality to the names that ``recognize`` may answer with.
    regions : mapping of str to mapping of str to str, optional
        Modality to the answers of ``classify``, such as "liver in abdomen CT", with the target of each; the target of
        "something else" is empty.
    abnormal : mapping of str to sequence of str, optional
        Modality to the targets that are abnormal in such images.
    """

    def __init__(
        self,
        targets: Mapping[str, Sequence[str]] | None = None,
        findings: Mapping[str, Sequence[str]] | None = None,
        regions: Mapping[str, Mapping[str, str]] | None = None,
        abnormal: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.abnormal = {modality: tuple(names) for modality, names in (abnormal or {}).items()}
        self.regions = {modality: dict(held) for modality, held in (regions or {}).items()}
        self.findings = {modality: tuple(names) for modality, names in (findings or {}).items()}
        self.targets = {name: tuple(others) for name, others in (targets or {}).items()}

    def __bool__(self) -> bool:
        return bool(self.targets or self.findings or self.regions or self.abnormal)

    @classmethod
    def read(cls, folder: Path) -> ModelVocabulary:
        """The vocabulary in the card of a model folder; empty where there is no card or it cannot be read."""
        path = folder / "card.json"
        try:
            card = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_BYTES else {}
            # cards of older models lack the last two
            targets, findings, abnormal = (
                {str(name): [str(other) for other in others] for name, others in part.items()}
                for part in (card["targets"], card["findings"], card.get("abnormal", {}))
            )
            held = card.get("regions", {})
            regions = {str(m): {str(words): str(t) for words, t in names.items()} for m, names in held.items()}
            return cls(targets, findings, regions, abnormal)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    @property
    def labels(self) -> frozenset[str]:
        """All names of regions, in lower case."""
        return frozenset(read_class(words).casefold() for held in self.regions.values() for words in held)

    def known_in(self, modality: str | None) -> frozenset[str]:
        """Targets of which the model saw examples in images of this modality; of all modalities where it is None.

        Models whose card has no regions do not tell modalities apart: all targets.
        """
        if not self.regions:
            return frozenset(self.targets)
        tables = self.regions.values() if modality is None else [self.regions.get(modality, {})]
        return frozenset(target for held in tables for target in held.values() if target)

    def shows(self, target: str, modality: str | None) -> bool:
        """Whether an image of this modality can show a target: by the terminology, or by examples in training."""
        return can_show(target, modality, None) or (bool(self.regions) and target in self.known_in(modality))

    def lookup(self, words: str, *, only_own: bool = False) -> tuple[str, ...]:
        """Targets that have a name or synonym in the card that equals some words; a name decides before a synonym.

        Parameters
        ----------
        words : str
            Case, hyphens, plural and British spelling make no difference.
        only_own : bool
            Only targets that are not in the terminology, such as those of a user's own data sets.
        """
        wanted = normalize(words)
        targets = {name: others for name, others in self.targets.items() if not (only_own and get_target(name))}
        if named := tuple(name for name in targets if normalize(name) == wanted):
            return named
        return tuple(name for name, others in targets.items() if wanted in map(normalize, others))

    def finds(self, label: str, modality: str | None) -> bool:
        """Whether ``recognize`` may name this in an image of this modality; True where that is not known."""
        if not self.findings or modality is None:
            return True
        return label.strip(" .").casefold() in (name.casefold() for name in self.findings.get(modality, ()))

    def sought(self, modality: str | None) -> tuple[str, ...]:
        """The targets that are abnormal in an image of this modality; none where that is not known."""
        names = self.abnormal.get(modality, ()) if modality else ()
        return tuple(name for name in names if self.shows(name, modality))

    def held(self, modality: str | None, said: str) -> dict[str, str]:
        """The answers of ``classify`` for this modality, with the target of each.

        Without a modality, that of the answer `said` is taken, such as "optic disc in retina fundus".
        """
        if modality is None:
            modality = next((name for name, held in self.regions.items() if said in held), None)
        return self.regions.get(modality, {}) if modality else {}

    def target_of(self, label: str, modality: str | None) -> str:
        """The target of a name of a region; empty where it has none or is not known."""
        tables = self.regions.values() if modality is None else [self.regions.get(modality, {})]
        named = (target for held in tables for words, target in held.items() if _same(read_class(words), label))
        return next(named, "")


def _same(one: str, other: str) -> bool:
    return one.strip(" .").casefold() == other.strip(" .").casefold()
