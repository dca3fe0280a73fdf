"""Storage of the answers of a model, with one line of JSON per image."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unibiomed.data.index import writing
from unibiomed.errors import OutputError

from ..deprecated import rename_keys, warn_deprecated
from ..predictions import safe_name

__all__ = ["AnswerFile", "ImageAnswers", "PairAnswer", "RecognitionAnswer"]


class PairAnswer(NamedTuple):
    """Answer to one pair.

    Parameters
    ----------
    target, kind : str
        As in `unibiomed.evaluate.absence.pairs.Pair`.
    score : float or None
        Presence score in [0, 1]. None if the model does not report it.
    has_mask : bool
        Whether the mask has any pixel. For a failure it is the wrong value.
    """

    target: str
    kind: str
    score: float | None
    has_mask: bool


class RecognitionAnswer(NamedTuple):
    """Answer to ``recognize``.

    Parameters
    ----------
    normal : bool
        Whether the image is known to be normal.
    has_finding : bool
        Whether the answer has a finding. For a failure it is the wrong value.
    exact_match : bool
        Whether the answer names all findings and no others.
    """

    normal: bool
    has_finding: bool
    exact_match: bool


@dataclass(frozen=True)
class ImageAnswers:
    """All answers of a model about one image.

    Parameters
    ----------
    key, dataset, modality, subject : str
        The image, and the group (patient, case) that it belongs to.
    digest : str
        Digest of the image, the model and the questions.
    pairs : tuple of PairAnswer
    recognized : RecognitionAnswer or None
        None if it is not known what is abnormal in the image.
    seconds : float
        Time for all answers.
    failure : str or None
        Reason of the last failure.
    """

    key: str
    dataset: str
    modality: str
    subject: str
    digest: str
    pairs: tuple[PairAnswer, ...]
    recognized: RecognitionAnswer | None
    seconds: float
    failure: str | None = None


class AnswerFile:
    """Answers of one model. Each image is appended, so that an interrupted evaluation can be continued.

    Parameters
    ----------
    out : Path
        Folder of the evaluation.
    name : str
        Name of the model.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / "answers" / f"{safe_name(name)}.jsonl"
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stored: dict[str, ImageAnswers] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                if (answers := _parse(line)) is not None:
                    self._stored[answers.key] = answers

    def stored(self, key: str, digest: str) -> ImageAnswers | None:
        """Return the answers about an image from an earlier run; None if they failed or the digest differs."""
        answers = self._stored.get(key)
        valid = answers is not None and answers.digest == digest and answers.failure is None
        return answers if valid else None

    def add(self, answers: ImageAnswers) -> None:
        """Append the answers about one image.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # start a new line after one that an interrupted run left incomplete
                start = "\n" if file.tell() and not self._ends_with_newline() else ""
                file.write(f"{start}{json.dumps(asdict(answers))}\n")
        except OSError as error:
            raise OutputError(
                f"'{self.path}' cannot be written ({error.strerror or error}): free some space or choose another --out"
            ) from error

    def _ends_with_newline(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


def _parse(line: str) -> ImageAnswers | None:
    """Parse a line; None if it is invalid, so that the image is evaluated again."""
    try:
        values: dict[str, Any] = json.loads(line)
        if "asked" in values:
            warn_deprecated("the previous format of answers", "'unibiomed evaluate' to write them again")
            values = rename_keys(values, {"asked": "digest"})
        pairs = tuple(PairAnswer(*pair) for pair in values.pop("pairs"))
        recognized = values.pop("recognized")
        recognition = None if recognized is None else RecognitionAnswer(*recognized)
        return ImageAnswers(**values, pairs=pairs, recognized=recognition)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
