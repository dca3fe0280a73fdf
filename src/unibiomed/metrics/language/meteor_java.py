"""METEOR 1.5 (Denkowski and Lavie, 2014): the authors' own program, in Java, out of the wheel of pycocoevalcap."""

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
    """Java, or the wheel with the program, is not installed."""


@dataclass(frozen=True, slots=True)
class Meteor:
    """Scores of METEOR 1.5, all in [0, 1]."""

    score: float
    """Of the corpus: counts are added up over all answers first. NaN for no answers."""
    answers: tuple[float, ...]
    """Of each answer, in their order."""


def meteor(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    paraphrases: bool = True,
    tokenize: Tokenizer = ptb_words,
) -> Meteor:
    """METEOR 1.5 for English, with its stems, synonyms and paraphrases.

    Of several references the best one counts.

    Parameters
    ----------
    hypotheses : sequence of str
        One answer for each image.
    references : sequence of sequence of str
        One reference or more for each image.
    paraphrases : bool
        Use its table of paraphrases, as published; it takes half a minute to read and 2 GB of memory.
    tokenize : callable
        From a text to its words; ``str.split`` for texts that are tokenised already. The program splits words again.

    Returns
    -------
    Meteor
        Published tables give the score times 100.

    Raises
    ------
    InputError
        If Java or pycocoevalcap is missing or the program fails, the lengths differ, an answer has no reference, or
        something is no text.
    """
    pairs = tokenize_pairs(hypotheses, references, tokenize)
    if not pairs:
        return Meteor(math.nan, ())
    with _program(paraphrases) as program:
        counts = [
            _ask(program, " ||| ".join(["SCORE", *map(_line, several), _line(words)])) for words, several in pairs
        ]
        scores = [float(_ask(program, " ||| ".join(["EVAL", *counts])))]
        scores += [float(_read(program)) for _ in pairs]
    *answers, corpus = scores
    return Meteor(corpus, tuple(answers))


def _line(words: Sequence[str]) -> str:
    return " ".join(" ".join(words).replace("|||", " ").split())


@contextmanager
def _program(paraphrases: bool) -> Iterator[subprocess.Popen[str]]:
    java, jar = shutil.which("java"), _jar()
    if java is None:
        raise MeteorMissingError(
            "METEOR 1.5 needs Java: apt-get install default-jre-headless, or use meteor_exact_stem"
        )
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
                with suppress(OSError):  # what a program that died has not read cannot be flushed
                    stream.close()  # type: ignore[union-attr]
            program.wait()


def _jar() -> Path:
    package = find_spec("pycocoevalcap")
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (jar := Path(folder, "meteor", "meteor-1.5.jar")).is_file():
            return jar
    raise MeteorMissingError(
        "METEOR 1.5 needs pycocoevalcap: pip install 'unibiomed[meteor]', or use meteor_exact_stem"
    )


def _ask(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin is not None
    try:
        program.stdin.write(line + "\n")
        program.stdin.flush()
    except OSError as error:
        raise InputError("METEOR 1.5 stopped: Java may have less than 2 GB of memory") from error
    return _read(program)


def _read(program: subprocess.Popen[str]) -> str:
    assert program.stdout is not None
    if not (line := program.stdout.readline().strip()):
        raise InputError("METEOR 1.5 stopped: Java may have less than 2 GB of memory")
    return line
