r"""The description of one data set, read from a TOML file and checked: data, not code.

Keys of the file (only ``name``, ``modality``, ``site``, ``adapter`` and ``licence`` are always needed)::

    name = "my_set"                    # folder under the data root
    title, licence, citation, note     # words for the data card
    adapter = "images"                 # one of those below
    modality = "MRI"                   # or a rule: { column = "modality", map = { MR_T1 = "MRI" } }
    site = "brain"                     # or a rule, as above
    external = true                    # kept for testing alone, as the paper's external sets
    abnormal_known = true              # is it known of every image whether it shows something abnormal?
    images = "images"                  # folder, or a pattern such as "*/scans/*.png" or "**/*.nii.gz"
    exclude = '_mask$'                 # images are left out in whose name this is found
    stem = '^(.+)_0000$'               # the part of the file name that {stem} stands for; else the whole
    window = "lung"                    # of grey values: a name or "centre,width"
    near_duplicates = "near_duplicates.txt"
    drop_mixed_labels = true           # leave out near-identical images with different labels
    twins = [["a1", "b7"]]             # near-identical images found when models had been trained: no image changes
                                       # its split, but groups for testing with a twin in training are left out
    group = { pattern = '^(P\d+)_' }   # or { column = "patient" }, { columns = ["case", "age"] }, or, for numbered
                                       # files, { block = 40 }; without a rule each image is its own group
    split = { pattern = '^(train|test)' }   # the authors' own split; else by hash of the group
                                       # "train" puts all images on one side; images that `unless` excludes from the
                                       # rule are split by hash
    mend_split = true                  # a group that is on two sides of it goes to the test side; else it is an error
    split_with = "my_sets"             # data sets of the same patients: all sets with this name hash the group under
                                       # it, so that a patient is on the same side in each of them
    label = { value = "Glioma" }       # or { column, map }; needs_finding = true where empty masks mean no disease
    spacing = { column = "spacing", unless = '^bad_' }
    attributes = { "TI-RADS" = "tirads" }   # name of the attribute = column of a table

    [[tables]]                         # joined to the images by file name
    file = "labels.csv"                # .csv (by its first line with commas, semicolons or tabs), .json, .jsonl or
                                       # .parquet; at most 500 MB, larger ones in several
    key = "id"                         # its column with the image's name, with or without folder and ending
    match = '^(P\d+)_'                 # the part of an image's name that the column holds; else all of it
    rows = "annotations"               # where the list of rows stands in a .json file that is not a list
    split = "train"                    # the authors' own split of the images in this table, in place of a rule
    folder = "train2017"               # with `coco`: the folder below `images` that this table's pictures lie in
    keep = { view = ["AP", "PA"] }     # rows are taken where each of these columns has one of these values

    [[targets]]
    name = "liver"
    masks = ["masks/{stem}.png"]       # the first that exists and all others are united; this is the default
    values = [3]                       # else every non-zero value
    objects = true                     # the masks number objects, such as nuclei, which are then told apart
    abnormal = false
    missing = "absent"                 # or "unknown"; left out, an image without a mask is an error
    absent_if = { label = ["normal"] } # the target is absent from images for which each of these columns has one of
                                       # these values; without a mask, it is unknown for all other images
    categories = ["Liver", "liver"]    # what `coco`, `published` and `boxes` call it; else its name

A target with ``absent_if`` may have ``masks = []``: the data set holds no masks of it, and says only where it is not.
Where one target contains another (a hemorrhage and its type), only one of them should be ``abnormal``: ``recognize``
names each abnormal target, and would name the same pixels twice. ``ignore_values = [5]`` are values of mask files that
belong to no target and count as background; any other value without a target is an error.

Names: a record is named by its file name without ending; with a pattern, the folders that the pattern leaves open stand
before it (``"P1/scan"``). Regular expressions are searched in that name. In ``masks``, ``{parent}`` stands for these
folders, ``{above}`` for them without the last, and ``*`` for anything in a file name.

``images`` are pictures with mask files.

``volumes`` are NIfTI, NRRD or MHA files or folders with one DICOM series each, with label volumes as ``masks``
(``"labels/{stem}.nii.gz"``), cut into slices: ``every = 5`` takes each fifth, ``skip_empty = true`` leaves out those
without any target, for which the label volumes are read. A NIfTI file may hold several volumes, such as sequences:
``channel = 0`` takes the first; label volumes hold one. Spacing comes from the file, and so does the modality of a
DICOM series if ``modality`` is left out.

``coco`` are pictures with ``tables`` in the COCO form (``key`` is not needed): masks from polygons and run lengths,
boxes where there are none. Columns of rules are keys of its ``images``. A table's ``folder`` stands before the names of
its records. A label that is not a category of a target is
an error unless it is in ``ignore = ["artefact"]``; without ``[[targets]]`` each is a target under its own name.

``published`` is the form of BiomedParse and UniBiomed: ``train/``, ``train_mask/``, ``test/``, ``test_mask/`` in the
folder ``images`` (here the data set's own if left out), with ``train.json``, ``test.json``, ``meta_train.json`` (for
volumes) or the ``tables`` named here, among them reports. Modality, site and targets come from the file names unless
given; a target that is not mentioned is unknown.

``questions`` reads ``tables`` of rows with ``question``, ``answer``, ``answer_type`` and ``qid``, or the columns that
``columns = { question = "Q", answer = "A" }`` names; without the last two, kinds are told from the answers and rows are
numbered. That an image or group has questions in two splits is an error, unless the authors did not split by image:
with ``shared_images = true`` each question keeps the ``split`` of its table. ``modality_words`` maps regular
expressions to modalities: where the questions about an image name one of these, it goes before ``modality``.

``captions`` are pictures with the columns named in ``text``, ``reports`` the same without pictures.

``boxes`` reads ``tables`` of one box a row, and the columns in ``text`` where there are any::

    [boxes]
    columns = ["x0", "y0", "x1", "y1"] # or one column that holds four numbers
    format = "xyxy"                    # or "xywh", in pixels from the upper left
    target = { column = "type", map = { 1 = "bone lesion" } }   # what is in the box
    abnormal = true
    text = "description"               # column that tells of this region
    table = "boxes.csv"                # the one of ``tables`` that holds the boxes, if not all do; the others describe
                                       # the images, also those without a box
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from unibiomed.data.keys import build, listed, read_toml
from unibiomed.errors import DataError

__all__ = ["Boxes", "DatasetEntry", "Rule", "Table", "Target", "read_entry"]

ADAPTERS = ("images", "volumes", "coco", "published", "questions", "captions", "boxes", "reports")
CONDITIONAL = ("images", "volumes", "boxes")
"""Adapters whose targets may depend on a column of a joined table."""
FREE_FORM = ("coco", "published")
"""Adapters whose tables are not joined by a column."""


@dataclass(frozen=True, slots=True)
class Rule:
    """How a value is found for one image: a fixed one, a part of its name, or a column of a table.

    Parameters
    ----------
    value : str or None
        The same for every image.
    pattern : str or None
        Regular expression searched in the file name without ending; its first group is the value.
    column : str or None
        Column of a joined table.
    columns : list of str or None
        Several columns, joined by commas.
    map : dict of str to str
        Changes raw values; a raw value that is not in a non-empty map is an error.
    unless : str or None
        Regular expression: images whose name it finds have no value.
    block : int or None
        Numbered files: this many numbers in a row share a value.
    needs_finding : bool
        Labels only: see `unibiomed.data.records.Record`.
    """

    value: str | None = None
    pattern: str | None = None
    column: str | None = None
    columns: list[str] | None = None
    map: dict[str, str] = field(default_factory=dict)
    unless: str | None = None
    block: int | None = None
    needs_finding: bool = False

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.value, self.pattern, self.column, self.columns, self.block)) != 1:
            raise DataError("a rule needs exactly one of value, pattern, column, columns, block")
        if self.block is not None and self.block < 1:
            raise DataError("block is not positive")
        _expression(self.pattern, 1)
        _expression(self.unless, 0)


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the data set, and its column with the image's file name; see the module's text for the keys."""

    file: str
    key: str = ""
    split: str | None = None
    match: str | None = None
    rows: str | None = None
    keep: dict[str, list[str]] = field(default_factory=dict)
    """Rows are kept where each of these columns has one of these values."""
    folder: str = ""

    def __post_init__(self) -> None:
        _inside(self.file)
        _inside(self.folder)
        _expression(self.match, 0)


@dataclass(frozen=True, slots=True)
class Boxes:
    """The columns of a table of boxes; see the module's text for the keys."""

    columns: list[str]
    target: Rule
    format: str = "xyxy"
    abnormal: bool = False
    text: str | None = None
    table: str | None = None

    def __post_init__(self) -> None:
        if len(self.columns) not in (1, 4):
            raise DataError("columns of boxes are neither four nor one that holds four numbers")
        if self.format not in ("xyxy", "xywh"):
            raise DataError(f"format '{self.format}' of boxes is neither 'xyxy' nor 'xywh'")


@dataclass(frozen=True, slots=True)
class Target:
    """A target that the data set annotates; see the module's text for the keys."""

    name: str
    masks: list[str] = field(default_factory=lambda: ["masks/{stem}.png"])
    values: list[int] | None = None
    abnormal: bool = False
    missing: str | None = None
    absent_if: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    categories: list[str] | None = None
    objects: bool = False

    def __post_init__(self) -> None:
        if self.missing not in (None, "absent", "unknown"):
            raise DataError(f"missing = '{self.missing}' of target '{self.name}' is neither 'absent' nor 'unknown'")
        if self.objects and self.values:
            raise DataError(f"target '{self.name}' has values and objects; numbers are classes or objects, not both")
        if self.absent_if and self.missing == "absent":
            raise DataError(f"target '{self.name}' has absent_if and missing = 'absent'; leave one of them out")
        if not all(self.absent_if.values()):
            raise DataError(f"absent_if of target '{self.name}' has a column without values; list the values")
        if not self.masks and not self.absent_if:
            raise DataError(f"target '{self.name}' has neither masks nor absent_if; give one of them")
        if not all(re.search(r"\{(stem|parent|above)\}", mask) for mask in self.masks):
            raise DataError(f"masks of target '{self.name}' do not all hold {{stem}}, {{parent}} or {{above}}")
        for mask in self.masks:
            _inside(mask)

    @property
    def without_mask(self) -> str | None:
        """What an image without a mask file means: ``"absent"``, ``"unknown"``, or None where it is an error."""
        return self.missing or ("unknown" if self.absent_if else None)


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One data set of the catalogue; the keys are explained at the top of this module.

    Parameters
    ----------
    folder : Path
        Where the data set lies.
    """

    name: str
    folder: Path
    adapter: str
    licence: str
    modality: Rule | None = None
    site: Rule | None = None
    title: str = ""
    citation: str = ""
    note: str = ""
    images: str = ""
    exclude: str | None = None
    stem: str | None = None
    window: str | None = None
    abnormal_known: bool = False
    external: bool = False
    near_duplicates: str | None = None
    drop_mixed_labels: bool = False
    twins: list[list[str]] = field(default_factory=list)
    group: Rule | None = None
    split: Rule | None = None
    mend_split: bool = False
    split_with: str | None = None
    label: Rule | None = None
    spacing: Rule | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    tables: tuple[Table, ...] = ()
    targets: tuple[Target, ...] = ()
    modality_words: dict[str, str] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
    shared_images: bool = False
    ignore: list[str] = field(default_factory=list)
    boxes: Boxes | None = None
    every: int = 1
    skip_empty: bool = False
    ignore_values: list[int] | None = None
    channel: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise DataError(f"name '{self.name}' holds other signs than letters, digits, '_', '-', '.'")
        if self.adapter not in ADAPTERS:
            raise DataError(f"adapter '{self.adapter}' is unknown; use one of {', '.join(ADAPTERS)}")
        for key, told_by_files in (("modality", ("volumes", "published")), ("site", ("published",))):
            if getattr(self, key) is None and self.adapter not in told_by_files:
                raise DataError(f"the file lacks a key ('{key}')")
        if self.adapter not in ("images", "volumes", "published") and not self.tables:
            raise DataError(f"adapter '{self.adapter}' needs [[tables]]")
        if self.adapter in FREE_FORM:
            if any(table.keep for table in self.tables):
                raise DataError(f"tables of adapter '{self.adapter}' are taken whole, without 'keep'")
        elif not all(table.key for table in self.tables):
            raise DataError("tables lacks a key ('key')")
        if self.adapter != "coco" and any(table.folder for table in self.tables):
            raise DataError("folder of tables is for adapter 'coco' alone")
        if self.split is not None and any(table.split for table in self.tables):
            raise DataError("a rule and tables tell the split; leave one of them out")
        self._check_split_with()
        self._check_masks()
        if self.shared_images and self.adapter != "questions":
            raise DataError("shared_images is for adapter 'questions' alone")
        if (self.boxes is None) == (self.adapter == "boxes"):
            raise DataError("adapter 'boxes' needs [boxes], no other takes it")
        if self.every < 1:
            raise DataError("every is not positive")
        if self.channel is not None and (self.channel < 0 or self.adapter != "volumes"):
            raise DataError("channel is negative, or not for volumes")
        if not self.images:
            object.__setattr__(self, "images", "." if self.adapter == "published" else "images")
        _expression(self.exclude, 0)
        _expression(self.stem, 1)
        for path in (self.images, self.near_duplicates):
            if path is not None:
                _inside(path)

    def _check_split_with(self) -> None:
        if self.split_with is None:
            return
        if not self.split_with.strip():
            raise DataError("split_with is empty; give the name that the data sets share, or leave it out")
        if self.split is not None or any(table.split for table in self.tables):
            raise DataError("split_with is for data sets without a split of their own; leave it or the split out")
        if self.near_duplicates is not None:
            # a joined group takes the name of another one, and with it a side that the other data sets do not know
            raise DataError("split_with and near_duplicates cannot be combined; join the images in the group column")

    def _check_masks(self) -> None:
        conditional = next((target.name for target in self.targets if target.absent_if), None)
        if conditional is not None and self.adapter not in CONDITIONAL:
            raise DataError(f"absent_if of target '{conditional}' is for adapters {', '.join(CONDITIONAL)} alone")
        if conditional is not None and not self.tables:
            raise DataError(f"absent_if of target '{conditional}' needs [[tables]] with its columns")
        if self.ignore_values is not None:
            if self.adapter not in ("images", "volumes"):
                raise DataError("ignore_values is for adapters 'images' and 'volumes' alone")
            twice = {value for target in self.targets for value in target.values or ()} & set(self.ignore_values)
            if twice:
                raise DataError(f"value {min(twice)} of ignore_values belongs to a target; take it out of one of them")
        if self.boxes is not None and self.boxes.table not in (None, *(table.file for table in self.tables)):
            raise DataError(f"table '{self.boxes.table}' of [boxes] is not one of [[tables]]; add it there")

    @property
    def split_name(self) -> str:
        """Name under which groups are hashed for the split."""
        return self.split_with or self.name

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of all targets, in the order of the catalogue."""
        return tuple(target.name for target in self.targets)


def read_entry(path: Path, root: Path) -> DatasetEntry:
    """Read and check one TOML file of the catalogue.

    Parameters
    ----------
    path : Path
        The file.
    root : Path
        Folder that holds the data set's folder.

    Returns
    -------
    DatasetEntry
        The entry; its folder need not exist.

    Raises
    ------
    DataError
        The file is missing, too large, not TOML, or a key is unknown, missing or of the wrong type.
    """
    values = read_toml(path)
    try:
        for name in ("modality", "site", "group", "split", "label", "spacing"):
            if name in values:
                values[name] = _rule(values[name], name)
        if "boxes" in values:
            if not isinstance(values["boxes"], dict):
                raise DataError("'boxes' is not a table")
            boxes = dict(values["boxes"])
            values["boxes"] = build(Boxes, boxes | {"target": _rule(boxes.get("target"), "target of boxes")}, "boxes")
        values["tables"] = tuple(build(Table, item, "tables") for item in listed(values, "tables"))
        values["targets"] = tuple(build(Target, item, "targets") for item in listed(values, "targets"))
        values["folder"] = root / str(values.get("name", ""))
        return build(DatasetEntry, values, "the file")
    except DataError as error:
        where = f"{path.parent.name}/{path.name}"
        raise DataError(f"{where}: {error}; mend the catalogue entry") from error


def _expression(text: str | None, groups: int) -> None:
    if text is None:
        return
    try:
        enough = re.compile(text).groups >= groups
    except re.error as error:
        raise DataError(f"'{text}' is not a regular expression ({error})") from error
    if not enough:
        raise DataError(f"'{text}' has no group in brackets")


def _rule(value: object, name: str) -> Rule:
    if isinstance(value, str):
        return Rule(value=value)
    return build(Rule, value, name)


def _inside(path: str) -> None:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or "\\" in path:
        raise DataError(f"path '{path}' leaves the data set's folder")
