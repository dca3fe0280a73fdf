"""The store of MONAI Label: volumes with label volumes in ``labels/final``, described in ``datastore_v2.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from unibiomed.data.layouts.proposal import Found, make_target

__all__ = ["STORES", "name_targets"]

STORES = ("datastore_v2.json", "datastore.json")


def name_targets(described: Mapping[str, Any], found: Found) -> None:
    """Give targets the names that the store has for the numbers in the labels.

    Parameters
    ----------
    described : mapping
        Contents of JSON files by path.
    found : Found
        What the folder was taken for; its targets are renamed. Nothing changes without a store, or where it does not
        name every number that was found.
    """
    names: dict[int, str] = {}
    for name, number in _labels(next((described[path] for path in STORES if path in described), None)):
        if names.setdefault(number, name) != name:
            return  # one number with two names
    targets = found.keys.get("targets", [])
    numbers = [target.get("values") for target in targets]
    if len(targets) == 1 and numbers == [None] and len(names) == 1:
        numbers = [list(names)]
    if not targets or not all(of_one and len(of_one) == 1 and of_one[0] in names for of_one in numbers):
        return
    for target, (number,) in zip(targets, numbers, strict=True):
        masks, values = target.get("masks", ()), target.get("values", ())
        new = make_target(names[number], masks, values, missing=target.get("missing", ""))
        target.clear()
        target |= new
    found.questions[:] = [text for text in found.questions if "(--target)" not in text]
    found.reasons.append(f"datastore_v2.json names the labels: {', '.join(target['name'] for target in targets)}")
    found.clues += [target["name"] for target in targets]


def _labels(store: Any) -> Iterator[tuple[str, int]]:
    """Name and number of every label that the objects of a store mention."""
    objects = store.get("objects") if isinstance(store, dict) else None
    for item in objects.values() if isinstance(objects, dict) else ():
        labels = item.get("labels") if isinstance(item, dict) else None
        for label in labels.values() if isinstance(labels, dict) else ():
            info = label.get("info") if isinstance(label, dict) else None
            listed = info.get("label_info") if isinstance(info, dict) else None
            for one in listed if isinstance(listed, list) else ():
                name, number = (one.get("name"), one.get("idx")) if isinstance(one, dict) else (None, None)
                if isinstance(name, str) and name.strip() and type(number) is int and number > 0:
                    yield name.strip(), number
