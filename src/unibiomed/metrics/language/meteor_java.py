"""METEOR 1.5 (Denkowski and Lavie, 2014), computed by the authors' Java program from the wheel of pycocoevalcap."""

from __future__ import annotations

import gzip
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from unibiomed.errors import InputError

from .corpus import Tokenizer, tokenize_pairs
from .tokens import ptb_words


class MeteorMissingError(InputError):
    """Java or pycocoevalcap is not installed."""


@dataclass(frozen=True, slots=True)
class Meteor:
    """Scores of METEOR 1.5 in [0, 1].

    Parameters
    ----------
    score : float
        Score of the corpus from the sums of counts over all answers; NaN without answers.
    answers : tuple of float
        Score of each answer.
    """

    score: float
    answers: tuple[float, ...]


def meteor(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    paraphrases: bool = True,
    tokenize: Tokenizer = ptb_words,
) -> Meteor:
    """Compute METEOR 1.5 for English with stems, synonyms and paraphrases.

    With several references, the best one is used.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer per image.
    references : sequence of sequence of str
        One or more references per image.
    paraphrases : bool
        Use the paraphrase table, as in published values. Loading it takes half a minute and 2 GB of memory.
    tokenize : callable
        Function from a text to its words. Use ``str.split`` for tokenised texts. The program tokenises again.

    Returns
    -------
    Meteor
        Published tables usually show the score times 100.

    Raises
    ------
    InputError
        Java or pycocoevalcap is not installed, the program fails, the lengths differ, an answer has no reference, or a
        text is not a string.
    """
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return Meteor(math.nan, ())
    with _program(paraphrases) as program:
        counts = [
            _send(program, " ||| ".join(["SCORE", *map(_line, several), _line(words)])) for words, several in pairs
        ]
        scores = [float(_send(program, " ||| ".join(["EVAL", *counts])))]
        scores += [float(_read(program)) for _ in pairs]
    *answers, corpus = scores
    return Meteor(corpus, tuple(answers))


def _line(words: Sequence[str]) -> str:
    return " ".join(" ".join(words).replace("|||", " ").split())


@contextmanager
def _program(paraphrases: bool) -> Iterator[subprocess.Popen[str]]:
    java, jar = shutil.which("java"), _jar()
    if java is None:
        raise MeteorMissingError("METEOR 1.5 needs Java: install default-jre-headless, or use meteor_exact_stem")
    with tempfile.TemporaryDirectory() as folder:
        command = [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
        if not paraphrases:
            empty = Path(folder, "none.gz")
            empty.write_bytes(gzip.compress(b""))
            command += ["-a", str(empty)]
        pipe = subprocess.PIPE
        program = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, encoding="utf-8")
        try:
            yield program
        finally:
            program.kill()
            for stream in (program.stdin, program.stdout):
                with suppress(OSError):  # flushing fails if the program died
                    stream.close()  # type: ignore[union-attr]
            program.wait()


def _jar() -> Path:
    package = find_spec("pycocoevalcap")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (jar := Path(folder, "meteor", "meteor-1.5.jar")).is_file():
            return jar
    raise MeteorMissingError(
        "METEOR 1.5 needs pycocoevalcap: run pip install 'unibiomed[meteor]', or use meteor_exact_stem"
    )


def _send(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin is not None
    try:
        program.stdin.write(line + "\n")
        program.stdin.flush()
    except OSError as error:
        raise InputError("METEOR 1.5 stopped unexpectedly: give Java at least 2 GB of memory") from error
    return _read(program)


def _read(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    if not (line := program.stdout.readline().strip()):
        raise InputError("METEOR 1.5 stopped unexpectedly: give Java at least 2 GB of memory")
    return line
