"""Describing a new data set: what its folder is taken for becomes its ``dataset.toml``, if that reads any of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unibiomed.data.adapters import iter_records
from unibiomed.data.catalog import OWN_ENTRY
from unibiomed.data.check_records import read_or_tell
from unibiomed.data.index import replacing
from unibiomed.data.layouts import Proposal, recognise_layout
from unibiomed.data.layouts.proposal import read_draft
from unibiomed.data.published import load_published
from unibiomed.data.records import summarise
from unibiomed.data.toml_text import toml_text
from unibiomed.errors import DataError

__all__ = ["Added", "add_dataset"]


@dataclass(frozen=True, slots=True)
class Added:
    """A data set that was described.

    Parameters
    ----------
    path : Path
        Its ``dataset.toml``.
    text : str
        What is in there.
    proposal : Proposal
        What the folder was taken for, and why.
    summary : str
        What the data hold, read by the entry.
    """

    path: Path
    text: str
    proposal: Proposal
    summary: str

    def words(self) -> str:
        """Reasons, questions and summary as text, a line each."""
        lines = [f"{self.path.parent.name}:", *(f"  {reason}" for reason in self.proposal.reasons)]
        if self.proposal.questions:
            lines += ["Please check:", *(f"  {question}" for question in self.proposal.questions)]
        return "\n".join([*lines, "", self.summary])


def add_dataset(
    folder: str | Path,
    *,
    modality: str | None = None,
    site: str | None = None,
    licence: str | None = None,
    targets: Sequence[str] = (),
    force: bool = False,
    dry_run: bool = False,
) -> Added:
    """Look at a folder and write the entry that reads it.

    Parameters
    ----------
    folder, modality, site, licence, targets
        As for `unibiomed.data.layouts.recognise_layout`.
    force : bool
        Replace a ``dataset.toml`` that is there.
    dry_run : bool
        Write nothing.

    Returns
    -------
    Added
        The entry, with what was read by it.

    Raises
    ------
    DataError
        The folder is not recognised, is described already, or nothing fits the entry that was found; nothing is written
        then. Files and rows that do not fit are told among the questions.
    InputError
        `modality` is unknown.
    OutputError
        The file cannot be written.
    """
    path = Path(folder).resolve() / OWN_ENTRY
    if path.exists() and not (force or dry_run):
        raise DataError(f"{path} is there already; give --force to replace it")
    proposal = recognise_layout(folder, modality=modality, site=site, licence=licence, targets=targets)
    text = toml_text(proposal.entry)
    entry = read_draft(proposal.entry, path.parent.parent)
    if load_published().is_external(entry.name):
        entry = replace(entry, external=True)
        proposal.reasons.append("the paper kept a data set of this name for testing alone, so all of it is")
    try:
        summary = summarise(iter_records(entry))
    except DataError as error:
        records, problems = read_or_tell(entry)
        if not records:
            raise DataError(f"{error} (nothing was written)") from error
        proposal.questions.append(
            f"to be mended before the data set is used: {problems[0].words()}"
            + (f", and {len(problems) - 1:,} more (unibiomed data check names all)" if len(problems) > 1 else "")
        )
        summary = summarise(records)
    if not dry_run:
        with replacing(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
    return Added(path, text, proposal, summary)
