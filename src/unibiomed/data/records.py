"""One image (or one report) with everything its data set says about it: the unit that training and evaluation read.

A record says what was *looked for*, not only what was found: a target that the data set annotates but that is missing
from this image stays in the record as a region without a mask, so that its absence is knowledge and not a gap.
`Record.triplets` gives the paper's image-region-text triplets.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unibiomed.data.pixels import check_values, load_labels, load_mask, load_picture, parts
from unibiomed.errors import DataError, InputError
from unibiomed.findings import NO_FINDINGS, check_rle, rle_decode
from unibiomed.images.modality import MODALITIES

__all__ = [
    "NO_FINDINGS",
    "PLANE",
    "REGION_TEXT",
    "SPLITS",
    "QuestionAnswer",
    "Record",
    "Region",
    "Triplet",
    "summarise",
]

Box = tuple[int, int, int, int]

SPLITS = ("train", "val", "test")
REGION_TEXT = "report"
"""Attribute of a region that holds whole sentences on it."""
PLANE = "plane"
"""Attribute of slices: left and right of a sagittal one are not the patient's."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where one target lies in one image, or the knowledge that it is not there.

    Parameters
    ----------
    target : str
        What it is, in plain field words, such as ``"liver"``.
    mask : Path, dict or None
        Single-channel mask file on the image's pixel grid, or a label volume of which `slice_index` is meant, or a COCO
        RLE. None where the target is known to be absent, or where only its box is known. A mask may turn out empty,
        which says the target is absent.
    values : tuple of int or None
        Mask values that belong to the target; None for every non-zero value.
    abnormal : bool
        A finding rather than anatomy.
    attributes : dict of str to str
        What else is known of this region.
    further_masks : tuple of Path
        More mask files of the same target; the region is the union of all.
    slice_index : int or None
        Slice of the label volumes, counted as `unibiomed.images.read_volume` counts; None for flat mask files.
    box : tuple of int or None
        ``(x0, y0, x1, y1)`` in pixels of the image, the last two exclusive: where the target lies if its outline is not
        known. Only without a mask.
    objects : bool
        The target comes in many pieces, such as nuclei, and the mask files tell them apart: each number is one object,
        and each further file holds others.
    ignored : tuple of int
        Mask values that belong to no target and count as background.
    """

    target: str
    mask: Path | dict[str, Any] | None
    values: tuple[int, ...] | None = None
    abnormal: bool = False
    attributes: dict[str, str] = field(default_factory=dict)
    further_masks: tuple[Path, ...] = ()
    slice_index: int | None = None
    box: Box | None = None
    objects: bool = False
    ignored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        where = self.mask.name if isinstance(self.mask, Path) else "a region without a mask file"
        if not self.target.strip():
            raise DataError(f"{where}: a region has no target; name what the mask shows")
        if self.values is not None and (not self.values or any(value < 1 for value in self.values)):
            raise DataError(f"{where}: mask values of '{self.target}' are {self.values}; give positive whole numbers")
        if self.objects and self.values is not None:
            raise DataError(f"{where}: the mask of '{self.target}' numbers objects; leave out the values")
        if self.mask is None and self.further_masks:
            raise DataError(f"{where}: '{self.target}' has further masks but no first one; put one of them first")
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            if self.mask is not None:
                raise DataError(f"{where}: '{self.target}' has a mask and a box; leave the box out, the mask tells it")
            if not (0 <= x0 < x1 and 0 <= y0 < y1):
                raise DataError(f"{where}: box {self.box} of '{self.target}' has no area; give x0, y0, x1, y1")
        if isinstance(self.mask, dict):
            if self.values is not None or self.further_masks:
                raise DataError(f"{where}: the RLE mask of '{self.target}' takes neither values nor further masks")
            try:
                check_rle(self.mask)
            except InputError as error:
                raise _broken_rle(self.target, error) from error

    @property
    def absent(self) -> bool:
        """Whether it is known, without reading a mask, that the target is not there."""
        return self.mask is None and self.box is None

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
        if isinstance(self.mask, Path):
            mask = load_mask(self.mask, height_width, self.values, self.slice_index)
            for path in self.further_masks:
                mask = mask | load_mask(path, (mask.shape[0], mask.shape[1]), self.values, self.slice_index)
            return mask
        if isinstance(self.mask, dict):
            try:
                mask = rle_decode(self.mask)
            except (InputError, ValueError) as error:
                raise _broken_rle(self.target, error) from error
            if height_width is not None and mask.shape != tuple(height_width):
                raise DataError(
                    f"the RLE mask of '{self.target}' is {mask.shape[1]} x {mask.shape[0]} pixels, its image "
                    f"{height_width[1]} x {height_width[0]}; make them equal"
                )
            return mask
        if self.box is not None:
            raise DataError(f"only the box of '{self.target}' is known; it has no mask to load")
        if height_width is None:
            raise DataError(f"'{self.target}' has no mask file; give the height and width of the image")
        return np.zeros(height_width, dtype=bool)

    def load_labels(self, height_width: tuple[int, int] | None = None) -> np.ndarray:
        """Read the mask with its objects told apart, touching ones too where the mask numbers them.

        Parameters
        ----------
        height_width : tuple of int, optional
            As in `load`.

        Returns
        -------
        numpy.ndarray
            ``(height, width)`` int32: 0 outside, else which object. Without numbers of objects, connected parts.

        Raises
        ------
        DataError
            As `load`.
        """
        if not (self.objects and isinstance(self.mask, Path)):
            return parts(self.load(height_width))
        labels = load_labels(self.mask, height_width, self.slice_index)
        for path in self.further_masks:
            more = load_labels(path, (labels.shape[0], labels.shape[1]), self.slice_index)
            labels = np.where((labels == 0) & (more > 0), more + labels.max(), labels)
        return labels


def _broken_rle(target: str, error: Exception) -> DataError:
    return DataError(f"the RLE mask of '{target}' is broken ({error}); make it again")


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
    image : Path, bytes or None
        Image file, or the file itself (PNG or JPEG, from a shard); None for a record that is text only.
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
    slice_index : int or None
        Slice of a volume that `image` is, counted as `unibiomed.images.read_volume` counts.
    window : str or None
        Intensity window, a name or ``"centre,width"``; None for the one that the modality and site of a volume's slice
        ask for, see `unibiomed.data.pixels.default_window`.
    licence : str
        Terms of the data set, as stated.
    external : bool
        Kept for testing alone: such a record is never in another split.
    channel : int or None
        Which of several volumes in the file `image` is a slice of; None where there is one.
    """

    key: str
    image: Path | bytes | None
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
    slice_index: int | None = None
    window: str | None = None
    licence: str = ""
    external: bool = False
    channel: int | None = None

    def __post_init__(self) -> None:
        where = self.image.name if isinstance(self.image, Path) else self.key
        if not self.key.startswith(f"{self.dataset}/") or self.key == f"{self.dataset}/":
            raise DataError(f"{where}: key '{self.key}' is not 'data set/name' of '{self.dataset}'; mend the key")
        if self.modality not in MODALITIES:
            raise DataError(f"{where}: modality '{self.modality}' is unknown; use one of {', '.join(MODALITIES)}")
        if self.split not in SPLITS:
            raise DataError(f"{where}: split '{self.split}' is unknown; use one of {', '.join(SPLITS)}")
        if self.external and self.split != "test":
            raise DataError(f"{where}: '{self.dataset}' is external, but its split is '{self.split}'; only test it")
        for name in ("site", "group"):
            if not getattr(self, name).strip():
                raise DataError(f"{where}: {name} is empty; the catalogue has to give one")
        if self.image is None and not (self.text and self.text.strip()):
            raise DataError(f"{where}: neither image nor text; leave the record out")
        if self.image is None and (self.regions or self.questions):
            raise DataError(f"{where}: regions or questions without an image; give the image or leave them out")
        for name, words in (("label", self.label), ("text", self.text)):
            if words is not None and not words.strip():
                raise DataError(f"{where}: {name} is empty; use None where it is unknown")
        twice = [target for target, number in Counter(region.target for region in self.regions).items() if number > 1]
        if twice:
            raise DataError(f"{where}: target '{twice[0]}' occurs twice; join its masks in one region")
        if self.spacing is not None and not all(0 < size < 1000 for size in self.spacing):
            raise DataError(f"{where}: pixel spacing {self.spacing} is not in (0, 1000) mm; mend it or leave it out")

    def check_masks(self) -> None:
        """Refuse mask files with values that belong to no target.

        Raises
        ------
        DataError
            There is such a value, or a file cannot be read.
        """
        described: dict[tuple[Path, int | None], set[int] | None] = {}
        for region in self.regions:
            if isinstance(region.mask, Path):
                for path in (region.mask, *region.further_masks):
                    known = described.setdefault((path, region.slice_index), set())
                    # a target of all values leaves none undescribed
                    described[path, region.slice_index] = (
                        None if known is None or region.values is None else known | {*region.values, *region.ignored}
                    )
        for (path, number), values in described.items():
            if values is not None:
                check_values(path, values, number)

    def load_image(self) -> np.ndarray:
        """Read the image: ``(height, width, 3)`` uint8, as the model sees it.

        Raises
        ------
        DataError
            The file is missing or broken, or the record is text only.
        """
        if self.image is None:
            raise DataError(f"{self.key}: text only, there is no image to load")
        return load_picture(self.image, self.key, self.modality, self.slice_index, self.window, self.site, self.channel)

    def triplets(self) -> Iterator[Triplet]:
        """The paper's image-region-text triplets of this record; no mask is opened.

        One for each region that may be there (its text is the target), one for the image's label, one for each
        question with its answer, and one for the report.
        """
        for region in self.regions:
            if not region.absent:
                yield Triplet(self, region, region.target)
        if self.label is not None:
            yield Triplet(self, None, self.label)
        for item in self.questions:
            yield Triplet(self, None, f"{item.question} {item.answer}")
        if self.text is not None:
            yield Triplet(self, None, self.text)

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


@dataclass(frozen=True, slots=True)
class Triplet:
    """Image, region and text: the unit that the paper counts (section 2.1).

    Parameters
    ----------
    record : Record
        The image, with its modality, data set, subject, split, spacing and licence.
    region : Region or None
        Mask or box; None where the text is about the whole image.
    text : str
        Target, label, question with its answer, or report.
    """

    record: Record
    region: Region | None
    text: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise DataError(f"{self.record.key}: a triplet has no text; name what the region shows")


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
