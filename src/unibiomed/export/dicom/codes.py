"""The codes of findings: SNOMED CT where the terminology has one, else a private code, never one that nearly fits."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from pydicom.sr.coding import Code

from unibiomed.terminology import Target, finding_site, match_target

__all__ = ["PRIVATE_SCHEME", "PRIVATE_SCHEME_NAME", "CodedLabel", "code_label", "private_code"]

PRIVATE_SCHEME: Final = "99UNIBIOMED"
"""Coding scheme designator of targets without a SNOMED CT code; those that begin with 99 are private (PS3.16 8.2)."""
PRIVATE_SCHEME_NAME: Final = "Targets of unibiomed"

_CATEGORIES = {
    "anatomy": Code("91723000", "SCT", "Anatomical Structure"),
    "cell": Code("91723000", "SCT", "Anatomical Structure"),
    "lesion": Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    "device": Code("260787004", "SCT", "Physical object"),
}
_UNKNOWN_CATEGORY = Code("309825002", "SCT", "Spatial and Relational Concept")
"""Category without further information: a region (CID 7150)."""
_SIDES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}


@dataclass(frozen=True, slots=True)
class CodedLabel:
    """Codes of a label.

    Attributes
    ----------
    type, category : Code
        Segmented property type and category (PS3.16 CID 7151, CID 7150); the type is also the finding of an SR.
    site : Code or None
        Where such a finding lies.
    side : Code or None
        Laterality.
    color : str or None
        Hexadecimal sRGB.
    note : str or None
        For the user, where the code is private.
    """

    type: Code
    category: Code
    site: Code | None = None
    side: Code | None = None
    color: str | None = None
    note: str | None = None


def code_label(label: str, side: str = "") -> CodedLabel:
    """Find the codes of a label.

    Parameters
    ----------
    label : str
        Canonical name or synonym of a target, also with a side ("left kidney"), or any other text.
    side : str
        ``"left"`` or ``"right"`` of the patient, or ``""``; the one that the label names goes before it.

    Returns
    -------
    CodedLabel
    """
    target = match_target(label)
    if target is None:
        first, _, rest = label.strip().partition(" ")
        if first.lower() in _SIDES and (target := match_target(rest)) is not None:
            side = first.lower()
    category = _UNKNOWN_CATEGORY if target is None else _CATEGORIES[target.category]
    color = None if target is None else target.color
    if target is None or target.code is None:
        kind = private_code(label if target is None else target.name)
        note = (
            f"'{label}' has no SNOMED CT code here: the DICOM files use a private code ({PRIVATE_SCHEME} {kind.value})"
        )
    else:
        kind, note = Code(target.code, "SCT", _meaning(target)), None
    site = None if target is None else _site(target, kind)
    return CodedLabel(kind, category, site, _SIDES.get(side), color, note)


def private_code(label: str) -> Code:
    """A code of our own for a label: the same for the same words, whatever their case."""
    words = " ".join(label.lower().split())
    digest = hashlib.sha256(words.encode()).hexdigest()[:12].upper()
    return Code(digest, PRIVATE_SCHEME, label.strip()[:64] or "unnamed")


def _meaning(target: Target) -> str:
    return target.name[0].upper() + target.name[1:]


def _site(target: Target, kind: Code) -> Code | None:
    if target.category == "anatomy" and target.code is not None:
        return kind
    site = finding_site(target.name)
    return None if site is None else Code(site.code, "SCT", site.meaning)
