"""What a model was taught, by its ``card.json``: the spelling of targets, and a word of warning on all others."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unibiomed.tasks import read_class

__all__ = ["Taught"]

MAX_BYTES = 4_000_000
SUGGESTED = 3


class Taught:
    """Targets of a model, and its findings.

    Parameters
    ----------
    targets : mapping of str to sequence of str
        Names that it was taught, each with other names that it was taught for the same; empty where it is not known.
    findings : mapping of str to sequence of str, optional
        Modality to what it was taught to find in such images.
    regions : mapping of str to mapping of str to str, optional
        Modality to what a drawn box may hold, in the words of the answer, and the target that it is; empty for
        "something else".
    abnormal : mapping of str to sequence of str, optional
        Modality to the targets that are findings in such images.
    """

    def __init__(
        self,
        targets: Mapping[str, Sequence[str]],
        findings: Mapping[str, Sequence[str]] | None = None,
        regions: Mapping[str, Mapping[str, str]] | None = None,
        abnormal: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.abnormal = {modality: tuple(names) for modality, names in (abnormal or {}).items()}
        self.regions = {modality: dict(held) for modality, held in (regions or {}).items()}
        self.findings = {modality: tuple(names) for modality, names in (findings or {}).items()}
        self.targets = {name: tuple(others) for name, others in targets.items()}
        every = [name for name, others in self.targets.items() for name in (name, *others)]
        self._spelled = {name.casefold(): name for name in reversed(every)}

    @classmethod
    def read(cls, folder: Path) -> Taught:
        """What the card in a model folder says; a model without one, or with a broken one, does not say."""
        path = folder / "card.json"
        try:
            card = json.loads(path.read_text("utf-8")) if path.stat().st_size <= MAX_BYTES else {}
            # cards of older models do not have the last two
            targets, findings, abnormal = (
                {str(name): [str(other) for other in others] for name, others in part.items()}
                for part in (card["targets"], card["findings"], card.get("abnormal", {}))
            )
            held = card.get("regions", {})
            regions = {str(m): {str(words): str(t) for words, t in names.items()} for m, names in held.items()}
            return cls(targets, findings, regions, abnormal)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls({})

    @property
    def labels(self) -> frozenset[str]:
        """All that a box may hold, in small letters."""
        return frozenset(read_class(words).casefold() for held in self.regions.values() for words in held)

    def spelling(self, target: str) -> str:
        """`target` in the letters that the model was taught; as it is where it was not, or where that is not known.

        A small model reads "Polyp" and "polyp" as different words.
        """
        return self._spelled.get(" ".join(target.split()).casefold(), target)

    def finds(self, label: str, modality: str | None) -> bool:
        """Whether a model may find this in an image of this modality; yes where that is not known."""
        if not self.findings or modality is None:
            return True
        return label.strip(" .").casefold() in (name.casefold() for name in self.findings.get(modality, ()))

    def sought(self, modality: str | None) -> tuple[str, ...]:
        """The targets that are findings in an image of this modality; none where that is not known."""
        return self.abnormal.get(modality, ()) if modality else ()

    def held(self, modality: str | None, said: str) -> dict[str, str]:
        """What a box may hold in an image of this modality, and the target that it is.

        Where the modality is not known, it is that of an answer: "optic disc in retina fundus" tells.
        """
        if modality is None:
            modality = next((name for name, held in self.regions.items() if said in held), None)
        return self.regions.get(modality, {}) if modality else {}

    def target_of(self, label: str, modality: str | None) -> str:
        """The target of what a box is called, in an image of this modality; empty where it has none or is not known."""
        tables = self.regions.values() if modality is None else [self.regions.get(modality, {})]
        named = (target for held in tables for words, target in held.items() if _same(read_class(words), label))
        return next(named, "")

    def warning(self, target: str) -> str | None:
        """What is to be said of a target that the model was not taught."""
        plain = " ".join(target.split()).casefold()
        if not self._spelled or plain in self._spelled:
            return None
        close = difflib.get_close_matches(plain, self._spelled, SUGGESTED, 0.7)
        meant = f"; did you mean {' or '.join(repr(self._spelled[name]) for name in close)}?" if close else ""
        return f"'{target}' is not a target that this model was taught: 'not found' says nothing{meant}"


def _same(one: str, other: str) -> bool:
    return one.strip(" .").casefold() == other.strip(" .").casefold()
