"""How people ask, and what they call things: the words of ``phrasing.toml``, read once and filled in.

The task's own question (`unibiomed.tasks.TASKS`) is among the training questions with a weight of `CANONICAL_SHARE`.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any

from unibiomed.tasks import TASKS, image_words, make_question
from unibiomed.terminology import Noun, get_noun, get_target, load_targets

__all__ = [
    "Attribute",
    "Concept",
    "ask",
    "concept_of",
    "image_phrase",
    "task_question",
    "with_article",
]

CANONICAL_SHARE = 0.25
OWN_WORDS = (None, "report_text")
"""Lists beside which the task's own question stands: a user who asks for a report knows not what there is to show."""
OWN_NAME_SHARE = 0.6
NAMED_WITH_SITE = ("CT", "MRI", "X-ray", "ultrasound", "endoscopy", "PET")
_VOWEL_LETTERS = "aefhilmnorsx"
_SINGULAR_ENDINGS = ("ss", "us", "is", "as", "ax")


@dataclass(frozen=True, slots=True)
class Concept:
    """One target in the words of the field; the keys are explained in ``phrasing.toml``.

    ``names`` are the canonical name, the synonyms and the generic words of `unibiomed.terminology`; ``said`` is its
    noun, None where a report uses the name.
    """

    names: tuple[str, ...]
    said: Noun | None = None
    mass: bool = False
    labelled: bool = False

    @property
    def counted(self) -> bool:
        """Whether a report tells the number of separate parts."""
        return self.said is None or self.said.counted

    def noun(self, parts: int) -> str:
        """The noun that a report calls it by, for so many separate parts."""
        return self.names[0] if self.said is None else self.said.form(parts)


@dataclass(frozen=True, slots=True)
class Attribute:
    """What is told of an attribute and asked about it; the keys are explained in ``phrasing.toml``."""

    questions: tuple[str, ...]
    told: Mapping[str, str]
    answers: Mapping[str, str]
    region: bool = False


@cache
def _words() -> dict[str, Any]:
    return tomllib.loads(files("unibiomed.data").joinpath("phrasing.toml").read_text(encoding="utf-8"))


@cache
def attributes() -> dict[str, Attribute]:
    """All attributes that conversations speak of, by name."""
    return {
        name: Attribute(
            tuple(item["questions"]), item.get("told", {}), item.get("answers", {}), bool(item.get("region", False))
        )
        for name, item in _words()["attributes"].items()
    }


@cache
def vocabulary() -> tuple[Concept, ...]:
    """All targets of the terminology, with how reports speak of them."""
    said = _words()["concepts"]
    return tuple(Concept(t.names, get_noun(t.name), **said.get(t.name, {})) for t in load_targets())


@cache
def rivals(label: str) -> tuple[str, ...]:
    """Labels that are wrong where this one is right."""
    for group in _words()["rivals"].values():
        if label.lower() in group:
            return tuple(other for other in group if other != label.lower())
    return ()


@cache
def concept_of(target: str) -> Concept:
    """The words for a target; a target nobody described is called by its own name.

    Parameters
    ----------
    target : str
        As in `unibiomed.data.Region`.
    """
    concepts = {concept.names[0]: concept for concept in vocabulary()}
    if known := get_target(target):
        return concepts[known.name]
    for other in load_targets():
        if target.lower() in (name.lower() for name in other.synonyms):
            return replace(concepts[other.name], names=(target, *other.names))
    return Concept((target,))


def image_phrase(modality: str | None, site: str, rng: random.Random) -> str:
    """One way to name an image: "image", "CT scan", "chest X-ray".

    Parameters
    ----------
    modality : str or None
        None where it should not be named.
    site : str
        Named in some of the phrases.
    rng : random.Random
        Decides.
    """
    if modality is None or rng.random() < 0.25:
        return rng.choice(("image", "image", "image", "picture"))
    words = image_words(modality) if rng.random() < 0.5 else rng.choice(_words()["images"][modality])
    named = rng.random() < 0.3 and modality in NAMED_WITH_SITE
    return f"{site} {words}" if named else words


def task_question(
    task: str,
    rng: random.Random | None,
    *,
    modality: str | None,
    site: str,
    target: str | None = None,
    form: str | None = None,
) -> str:
    """A question of a task family.

    Parameters
    ----------
    task : str
        One of `unibiomed.tasks.TASKS` that is put in words, but ``"ask"``.
    rng : random.Random or None
        Chooses the words; None gives the task's own question.
    modality : str or None
        Of the image; None where unknown.
    site : str
        Of the image.
    target : str, optional
        What to outline.
    form : str, optional
        Another list of ``phrasing.toml``, in place of the task's.
    """
    if rng is None or (form in OWN_WORDS and rng.random() < CANONICAL_SHARE):
        return make_question(task, target=target, modality=modality)
    template = rng.choice(_words()["questions"][form or task])
    return _loosen(fill(template, image=image_phrase(modality, site, rng), target=target), rng)


def ask(kind: str, rng: random.Random | None, *, modality: str | None, site: str, target: str | None = None) -> str:
    """A question of the list `kind` under ``[ask]``; without `rng`, the first one in plain words."""
    templates: Sequence[str] = _words()["ask"][kind]
    if rng is None:
        return fill(templates[0], image=image_words(modality), target=target, modality=modality)
    # A question about the modality must not give it away beside the one that it names.
    image = image_phrase(None if kind == "is_modality" else modality, site, rng)
    return _loosen(fill(rng.choice(templates), image=image, target=target, modality=modality), rng)


def fill(template: str, *, image: str, target: str | None = None, modality: str | None = None) -> str:
    """`template` with its gaps filled in and a large first letter."""
    words = {"image": image, "modality": modality or "", "a_modality": with_article(modality or "")}
    if target is not None:
        plural = is_plural(target)
        words |= {"target": target, "is": "are" if plural else "is", "Is": "Are" if plural else "Is"}
        words["a_target"] = with_article(target)
    text = template.format(**words)
    if words.get("is") == "are":
        for one, many in (
            ("Is there ", "Are there "),
            (f"Is {target} ", f"Are {target} "),
            (f"oes the {target}", f"o the {target}"),
        ):
            text = text.replace(one, many, 1)
    return text[:1].upper() + text[1:]


def with_article(name: str) -> str:
    """`name` with "a" or "an", or without where it is plural or takes none: "an MRI", "nuclei"."""
    if is_plural(name) or _is_mass(name):
        return name
    first = name.split()[0] if name.split() else ""
    spelled = len(first) > 1 and (first.isupper() or first[1:2] == "-")
    vowel = first[:1].lower() in (_VOWEL_LETTERS if spelled else "aeiou")
    return f"{'an' if vowel else 'a'} {name}"


@cache
def is_plural(name: str) -> bool:
    """Whether a name takes "are": "nuclei", "blood vessels", "the liver and the kidney"."""
    head = name.lower().split(" of ")[0].split(" in ")[0]
    if " and " in head and not head.startswith("heart and"):
        return True
    last = head.split()[-1] if head.split() else ""
    return last == "nuclei" or (last != "lens" and last.endswith("s") and not last.endswith(_SINGULAR_ENDINGS))


@cache
def _is_mass(name: str) -> bool:
    words = name.lower()
    if any(
        word in words for word in ("fluid", "tissue", "parenchyma", "vasculature", "muscle", "edema", "consolidated")
    ):
        return True
    return any(concept.mass and words in concept.names for concept in vocabulary())


def pick_name(target: str, rng: random.Random | None, further: Sequence[str] = ()) -> str:
    """A name of a target, mostly its own; `further` are names that hold for this image only."""
    if rng is None or rng.random() < OWN_NAME_SHARE:
        return target
    return rng.choice((*concept_of(target).names, *further))


def listed(words: Sequence[str]) -> str:
    """``"a, b and c"``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def every_phrase() -> list[str]:
    """All words of the file, for training a tokenizer."""
    words = _words()
    lists = [*words["questions"].values(), *words["ask"].values(), *words["images"].values()]
    lists += [concept.names for concept in vocabulary()]
    lists += [[*item.questions, *item.told.values(), *item.answers.values()] for item in attributes().values()]
    return [task.question for task in TASKS.values() if task.in_words] + [
        phrase for phrases in lists for phrase in phrases
    ]


def _loosen(question: str, rng: random.Random) -> str:
    """Sometimes without a large first letter or the last sign, as people type."""
    if rng.random() < 0.2 and not question[:2].isupper() and question[1:2] != "-":
        question = question[:1].lower() + question[1:]
    return question.rstrip(".?") if rng.random() < 0.15 else question
