"""What a model answered about one image, one line of JSON an image."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from unibiomed.data.index import writing
from unibiomed.errors import OutputError

from ..predictions import safe_name

__all__ = ["Answer", "AnswerFile", "Asked", "Recognized"]


class Asked(NamedTuple):
    """One pair with its answer.

    Parameters
    ----------
    target, kind : str
        As in `unibiomed.evaluate.absence.pairs.Pair`.
    score : float or None
        Probability in [0, 1] that the target is there; None where the model gives none.
    drawn : bool
        Whether the mask has any pixel. Where there is no answer, the wrong one.
    """

    target: str
    kind: str
    score: float | None
    drawn: bool


class Recognized(NamedTuple):
    """The answer to ``recognize``.

    Parameters
    ----------
    normal : bool
        Whether the image is known to show nothing abnormal.
    found : bool
        Whether the model finds anything. Where there is no answer, the wrong one.
    exact : bool
        Whether all findings are named and no others.
    """

    normal: bool
    found: bool
    exact: bool


@dataclass(frozen=True)
class Answer:
    """All answers about one image.

    Parameters
    ----------
    key, dataset, modality, subject : str
        The image, and the group (patient, case) that it belongs to.
    asked : str
        Digest of the image, the model and all that was asked.
    pairs : tuple of Asked
    recognized : Recognized or None
        None where it is not known what is abnormal.
    seconds : float
        Time of all answers.
    failure : str or None
        Why there is no answer to some of it; the last reason.
    """

    key: str
    dataset: str
    modality: str
    subject: str
    asked: str
    pairs: tuple[Asked, ...]
    recognized: Recognized | None
    seconds: float
    failure: str | None = None


class AnswerFile:
    """The answers of one model, to which each image adds a line; a killed run goes on from it.

    Parameters
    ----------
    out : Path
        Folder of the evaluation.
    name : str
        Of the model.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """

    def __init__(self, out: Path, name: str) -> None:
        self.path = out / "answers" / f"{safe_name(name)}.jsonl"
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._kept: dict[str, Answer] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                if (answer := _read(line)) is not None:
                    self._kept[answer.key] = answer

    def kept(self, key: str, asked: str) -> Answer | None:
        """The answer about an image from an earlier run, unless it failed or something else was asked."""
        found = self._kept.get(key)
        return found if found is not None and found.asked == asked and found.failure is None else None

    def add(self, answer: Answer) -> None:
        """Keep an answer.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                # a line that a killed run left unfinished is closed first
                start = "\n" if file.tell() and not self._ended() else ""
                file.write(f"{start}{json.dumps(asdict(answer))}\n")
        except OSError as error:
            raise OutputError(
                f"'{self.path}' cannot be written ({error.strerror or error}): make room, or choose another --out"
            ) from error

    def _ended(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"


def _read(line: str) -> Answer | None:
    """The answer of a line; None where it is broken, so that the image is asked again."""
    try:
        values: dict[str, Any] = json.loads(line)
        pairs = tuple(Asked(*pair) for pair in values.pop("pairs"))
        told = values.pop("recognized")
        return Answer(**values, pairs=pairs, recognized=None if told is None else Recognized(*told))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
