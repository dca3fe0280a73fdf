"""The layout that the catalogue knows of a published data set, for a folder of its name."""

from __future__ import annotations

from copy import deepcopy

from unibiomed.data.adapters import iter_records
from unibiomed.data.layouts.proposal import Found, make_target, read_draft
from unibiomed.data.layouts.survey import Survey
from unibiomed.data.published import PublishedDataset, load_published
from unibiomed.errors import DataError

__all__ = ["known_form"]


def known_form(survey: Survey) -> Found | None:
    """What the catalogue says of the files; None where it knows no such name, or the first record is not read by it."""
    named = load_published().named(survey.folder.name)
    if len(named) != 1 or not (named[0].adapter and named[0].options):
        return None
    found = _found(named[0])
    probe = {"name": survey.folder.name, "licence": "?", "modality": named[0].modality[0], "site": "?"}
    try:
        next(iter_records(read_draft(probe | found.keys, survey.folder.parent)))
    except DataError:
        return None
    return found


def _found(dataset: PublishedDataset) -> Found:
    keys = {"adapter": dataset.adapter, **deepcopy(dataset.options)}
    found = Found(keys, [f"its name and files are those of '{dataset.name}' in the catalogue: {dataset.title}"])
    masks, values = keys.pop("masks", ()), keys.pop("values", {})
    targets = [make_target(name, masks, (value,)) for name, value in values.items()]
    if masks and not values:
        word = dataset.regions[0].lower() if len(dataset.regions) == 1 else "target"
        targets = [make_target(word, masks)]
        found.questions.append(f"name the target: it is called '{word}' (--target)")
    keys["targets"] = [*keys.pop("targets", ()), *targets]
    keys |= {key: text for key in ("title", "citation", "licence") if (text := getattr(dataset, key))}
    whole = ("", "image", "case") if dataset.adapter == "volumes" else ("", "image")
    if dataset.group not in whole and "group" not in keys:
        found.questions.append(f"a split must not tear a {dataset.group} apart: add a rule for group")
    if dataset.note:
        found.questions.append(f"the catalogue notes: {' '.join(dataset.note.split())}")
    found.clues = list(dataset.regions)
    return found
