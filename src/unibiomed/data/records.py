"""One image (or one report) with everything its data set says about it: the unit that training and evaluation read.

A record says what was *looked for*, not only what was found: a target that the data set annotates but that is missing
from this image stays in the record as a region without a mask, so that its absence is knowledge and not a gap. This is
what the paper's image-mask-text triplets are made from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from unibiomed.errors import DataError
from unibiomed.findings import NO_FINDINGS
from unibiomed.images.modality import MODALITIES

__all__ = ["NO_FINDINGS", "SPLITS", "QuestionAnswer", "Record", "Region", "summarise"]

SPLITS = ("train", "val", "test")
MAX_MASK_PIXELS = 100_000_000
_MASK_FORMATS = ("PNG", "BMP", "TIFF")
_MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B")


@dataclass(frozen=True, slots=True)
class Region:
    """Where one target lies in one image, or the knowledge that it is not there.

    Parameters
    ----------
    target : str
        What it is, in plain field words, such as ``"liver"``.
    mask : Path or None
        Single-channel mask file on the image's pixel grid; None where the target is known to be absent.
        A file may turn out empty, which says the same.
    values : tuple of int or None
        Mask values that belong to the target; None for every non-zero value.
    abnormal : bool
        A finding rather than anatomy.
    attributes : dict of str to str
        What else is known of this region.
    further_masks : tuple of Path
        More mask files of the same target; the region is the union of all.
    """

    target: str
    mask: Path | None
    values: tuple[int, ...] | None = None
    abnormal: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    further_masks: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        where = self.mask.name if self.mask else "a region without a mask file"
        if not self.target.strip():
            raise DataError(f"{where}: a region has no target; name what the mask shows")
        if self.values is not None and (not self.values or any(value < 1 for value in self.values)):
            raise DataError(f"{where}: mask values of '{self.target}' are {self.values}; give positive whole numbers")
        if self.mask is None and self.further_masks:
            raise DataError(f"{where}: '{self.target}' has further masks but no first one; put one of them first")

    def load(self, height_width: tuple[int, int] | None = None) -> np.ndarray:
        """Read the mask.

        Parameters
        ----------
        height_width : tuple of int, optional
            Size of the image in pixels. The mask has to fit it; needed where the target is absent.

        Returns
        -------
        numpy.ndarray
            ``(height, width)`` bool, True on the target.

        Raises
        ------
        DataError
            A file is missing, broken, too large, has colours, or does not fit the image; or the region has no file and
            no size was given.
        """
        if self.mask is None:
            if height_width is None:
                raise DataError(f"'{self.target}' has no mask file; give the height and width of the image")
            return np.zeros(height_width, dtype=bool)
        mask = self._read(self.mask, height_width)
        for path in self.further_masks:
            mask = mask | self._read(path, (mask.shape[0], mask.shape[1]))
        return mask

    def _read(self, path: Path, height_width: tuple[int, int] | None) -> np.ndarray:
        try:
            with Image.open(path, formats=_MASK_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_MASK_PIXELS:
                    raise DataError(f"{path.name}: mask of {width} x {height} pixels is too large; scale it down")
                if image.mode not in _MASK_MODES:
                    raise DataError(
                        f"{path.name}: mask has mode {image.mode}; save it with one channel of class numbers"
                    )
                if height_width is not None and (height, width) != tuple(height_width):
                    expected = f"{height_width[1]} x {height_width[0]}"
                    raise DataError(
                        f"{path.name}: mask is {width} x {height} pixels, its image {expected}; make them equal"
                    )
                numbers = np.asarray(image)
        except FileNotFoundError as error:
            raise DataError(f"{path.name}: mask file is missing from {path.parent}; restore it") from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path.name}: cannot be read as a mask; save it again as PNG") from error
        return numbers > 0 if self.values is None else np.isin(numbers, self.values)


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question about an image with the answer an expert gave.

    Parameters
    ----------
    question, answer : str
        The words, without leading or trailing space.
    kind : {"open", "closed"}
        Closed questions have a yes/no answer or name the choices.
    qid : str
        The question's number in its data set.
    """

    question: str
    answer: str
    kind: str
    qid: str

    def __post_init__(self) -> None:
        if not self.question.strip() or not self.answer.strip():
            raise DataError(f"question {self.qid}: question or answer is empty; fill it in or leave the row out")
        if self.kind not in ("open", "closed"):
            raise DataError(f"question {self.qid}: kind is '{self.kind}'; use 'open' or 'closed'")


@dataclass(frozen=True, slots=True)
class Record:
    """One image with its regions, labels and words, or one report without an image.

    Parameters
    ----------
    key : str
        ``dataset/stem``, unique among all records.
    image : Path or None
        Image file; None for a record that is text only.
    dataset : str
        Folder name of the data set.
    modality : str
        One of `unibiomed.images.modality.MODALITIES`.
    site : str
        Anatomical site, such as ``"abdomen"``.
    group : str
        What must not be torn apart by a split: patient, case, eye, block.
    split : {"train", "val", "test"}
        Side of the split.
    regions : tuple of Region
        Every target the data set annotates for this kind of image, those known to be absent included.
    label : str or None
        Diagnosis of the image in the field's words, such as ``"Meningioma"`` or ``"No findings"``; None where unknown.
        Where `label_needs_finding` is set, ask `diagnosis`.
    label_needs_finding : bool
        The label holds only where an abnormal region of the image is not empty: a tumour is not on every slice.
    abnormal_known : bool
        Whether it is known if the image shows something abnormal.
    attributes : dict of str to str
        What else is known: TI-RADS category, dermoscopic criteria, nucleus count, cell type, view, ...
    questions : tuple of QuestionAnswer
        Questions with the experts' answers.
    text : str or None
        Report text; None where there is none.
    spacing : tuple of float or None
        ``(row, column)`` size of a pixel in mm.
    """

    key: str
    image: Path | None
    dataset: str
    modality: str
    site: str
    group: str
    split: str
    regions: tuple[Region, ...] = ()
    label: str | None = None
    abnormal_known: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    questions: tuple[QuestionAnswer, ...] = ()
    text: str | None = None
    spacing: tuple[float, float] | None = None
    label_needs_finding: bool = False

    def __post_init__(self) -> None:
        where = self.image.name if self.image else self.key
        if not self.key.startswith(f"{self.dataset}/") or self.key == f"{self.dataset}/":
            raise DataError(f"{where}: key '{self.key}' is not 'data set/name' of '{self.dataset}'; mend the key")
        if self.modality not in MODALITIES:
            raise DataError(f"{where}: modality '{self.modality}' is unknown; use one of {', '.join(MODALITIES)}")
        if self.split not in SPLITS:
            raise DataError(f"{where}: split '{self.split}' is unknown; use one of {', '.join(SPLITS)}")
        for name in ("site", "group"):
            if not getattr(self, name).strip():
                raise DataError(f"{where}: {name} is empty; the catalogue has to give one")
        if self.image is None and not (self.text and self.text.strip()):
            raise DataError(f"{where}: neither image nor text; leave the record out")
        if self.image is None and (self.regions or self.questions):
            raise DataError(f"{where}: regions or questions without an image; give the image or leave them out")
        if self.label is not None and not self.label.strip():
            raise DataError(f"{where}: label is empty; use None where it is unknown")
        twice = [target for target, number in Counter(region.target for region in self.regions).items() if number > 1]
        if twice:
            raise DataError(f"{where}: target '{twice[0]}' occurs twice; join its masks in one region")
        if self.spacing is not None and not all(0 < size < 1000 for size in self.spacing):
            raise DataError(f"{where}: pixel spacing {self.spacing} is not in (0, 1000) mm; mend it or leave it out")

    def diagnosis(self, finding_present: bool) -> str | None:
        """What a reader of this image should answer when asked for the diagnosis.

        Parameters
        ----------
        finding_present : bool
            Whether any abnormal region of the image is not empty (masks are read by the caller, once).

        Returns
        -------
        str or None
            The label; `NO_FINDINGS` where the image is known to show none; None where nothing can be said.
        """
        if finding_present or not self.label_needs_finding:
            return self.label
        return NO_FINDINGS if self.abnormal_known else None


def summarise(records: Iterable[Record]) -> str:
    """Table of what there is: records a split, groups, questions, and how often each target has a mask file.

    Parameters
    ----------
    records : iterable of Record
        From `unibiomed.data.load_records`.

    Returns
    -------
    str
        Lines of text, one a data set, with ``target with-mask-file/known`` at the end. A mask file may be empty.
    """
    by_dataset: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_dataset[record.dataset].append(record)
    rows: list[tuple[str, ...]] = [("data set", "modality", *SPLITS, "groups", "questions", "targets")]
    for dataset, members in sorted(by_dataset.items()):
        splits = Counter(record.split for record in members)
        known = Counter(region.target for record in members for region in record.regions)
        given = Counter(region.target for record in members for region in record.regions if region.mask is not None)
        rows.append(
            (
                dataset,
                "/".join(sorted({record.modality for record in members})),
                *(str(splits[split]) for split in SPLITS),
                str(len({record.group for record in members})),
                str(sum(len(record.questions) for record in members)),
                ", ".join(f"{target} {given[target]}/{number}" for target, number in known.items()) or "none",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(f"{c:<{w}}" for c, w in zip(row[:-1], widths, strict=True)), row[-1]]) for row in rows
    )
