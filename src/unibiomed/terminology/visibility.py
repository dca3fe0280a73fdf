"""Which targets an image of some kind can show, by its modality and the body region that its site names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import cache

from .spelling import normalize
from .targets import Target, get_target, load_targets, read_table

__all__ = ["absent_targets", "can_show", "image_regions", "known_regions"]

_ONE_REGION = {"dermoscopy": "skin", "fundus": "eye"}
"""Modalities that image one region, whatever the site names: the dermoscopy of a hand shows its skin."""
_SECTIONS = ("CT", "MRI", "PET")


@cache
def known_regions() -> frozenset[str]:
    """All body regions."""
    table = read_table("regions.toml")
    return frozenset(region for part in ("body", "endoscopy", "pathology") for region in table[part])


@cache
def image_regions(modality: str | None, site: str | None) -> frozenset[str]:
    """Body regions that an image lies in.

    Parameters
    ----------
    modality : str or None
        One of `unibiomed.images.MODALITIES`; None where unknown, which allows the regions of every modality.
    site : str or None
        Body part in words, such as ``"head and neck"``.

    Returns
    -------
    frozenset of str
        Empty where the site is unknown.
    """
    words = f" {normalize(site or '')} "
    table = read_table("regions.toml")
    body = _named(table["body"], words) | {
        region for word, regions in table["wide"].items() if f" {normalize(word)} " in words for region in regions
    }
    tissue = _named(table["pathology"], words) or ({"tissue_other"} if body else set())
    inside = _named(table["endoscopy"], words)
    if modality == "pathology":
        found = tissue
    elif modality == "endoscopy":
        # the abdomen may be looked at from within the bowel or, at laparoscopy, from outside
        found = inside | (body if not inside or "abdomen" in words else set())
    elif modality is None:
        found = body | inside | (tissue if tissue or not body else set())
    elif modality in _ONE_REGION:
        found = {_ONE_REGION[modality]} if words.strip() else set()
    else:
        # sections of the breast reach through the chest
        found = body | ({"chest"} if "breast" in body and modality in _SECTIONS else set())
    return frozenset(found)


def can_show(target: str, modality: str | None, site: str | None) -> bool:
    """Whether an image of this kind can show a target.

    Parameters
    ----------
    target : str
        Canonical name.
    modality, site : str or None
        Of the image; None where unknown. Only what is known excludes.

    Returns
    -------
    bool
        False where the modality or the site excludes the target. True for a target that is not in the table.
    """
    known = get_target(target)
    return known is None or _shows(known, modality, image_regions(modality, site))


def absent_targets(modality: str | None, site: str | None, annotated: Collection[str] = ()) -> tuple[str, ...]:
    """Targets of the table that an image of this kind cannot show.

    Parameters
    ----------
    modality, site : str or None
        Of the image; None where unknown.
    annotated : collection of str, optional
        Targets that the image's own annotations speak of: these are never returned, whatever the table says.

    Returns
    -------
    tuple of str
        Canonical names, in the order of the table. Whatever is not among them may be in the image.
    """
    absent = _absent(modality, site)
    own = {name.lower() for name in annotated}
    return tuple(name for name in absent if name.lower() not in own) if own else absent


@cache
def _absent(modality: str | None, site: str | None) -> tuple[str, ...]:
    regions = image_regions(modality, site)
    return tuple(target.name for target in load_targets() if not _shows(target, modality, regions))


def _shows(target: Target, modality: str | None, regions: frozenset[str]) -> bool:
    return any(
        (modality is None or modality == its_modality) and (not regions or region in regions)
        for its_modality, region in target.seen
    )


def _named(regions: dict[str, Iterable[str]], words: str) -> set[str]:
    return {region for region, known in regions.items() if any(f" {normalize(word)} " in words for word in known)}
