"""Expected values from other people's tests and published runs: every entry of the shared vectors is asserted.

Entries of other definitions (google's rouge_score, NLTK, sacrebleu) check the parts that ours share with them; what is
theirs alone is written out here.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from unibiomed.metrics.language import bleu, cider, meteor, meteor_exact_stem, rouge_l
from unibiomed.metrics.language.bleu import brevity_penalty, clipped_ngrams, closest_length
from unibiomed.metrics.language.meteor_stem import fragmented_f
from unibiomed.metrics.language.rouge import lcs_length, lcs_precision_recall

Vector = dict[str, Any]

ROUGE = ["g-rL-0", "g-rL-1", "g-rL-consecutive", "g-rL-nonconsecutive", "g-empty"]
OURS = ["nlgeval-corpus2", "nlgeval-single-en", "nlgeval-single-fr", "iuxray-template-test"]
NEED_JAVA = ["nlgeval-corpus2", "nlgeval-single-en", "nlgeval-single-fr", "nlgeval-meteor-identity"]
REPORTS = "meteor-iu-template-DERIVED"
GREEDY = [
    "nltk-meteor-guide",
    "nltk-meteor-case",
    "nltk-meteor-cat-reordered",
    "nltk-meteor-cat-was",
    "nltk-meteor-none",
]
BLEU = ["sb-13a", "nltk-bleu-1", "nltk-bleu-corpus"]
PRECISIONS = ["papineni-the", "papineni-guide"]
OTHERS = ["g-lcs", "nltk-bp"]

needs_java = pytest.mark.skipif(
    not (shutil.which("java") and find_spec("pycocoevalcap")), reason="METEOR 1.5 needs Java and pycocoevalcap"
)


@pytest.fixture(scope="module")
def folder(shared_data: Path) -> Path:
    folder = shared_data.parent / "metrics"
    if not (folder / "vectors.json").is_file():
        pytest.skip(f"no expected values: {folder} holds no vectors.json")
    return folder


@pytest.fixture(scope="module")
def vectors(folder: Path) -> dict[str, Vector]:
    found = {entry["id"]: entry for entry in json.loads((folder / "vectors.json").read_text())}
    for entry in found.values():
        if "hyp_file" in entry:
            answers, references = (json.loads((folder / entry[f"{kind}_file"]).read_text()) for kind in ("hyp", "refs"))
            entry["hyp"] = [answers[key][0] for key in answers]
            entry["refs"] = [references[key] for key in answers]
            entry["keys"] = list(answers)
    return found


def near(value: float, entry: Vector) -> Any:
    return pytest.approx(value, abs=entry.get("tol", 1e-12), rel=1e-12)


def test_every_entry_is_tested(vectors: dict[str, Vector]) -> None:
    assert {*ROUGE, *OURS, *NEED_JAVA, REPORTS, *GREEDY, *BLEU, *PRECISIONS, *OTHERS} == vectors.keys()
    assert len(vectors) == 23


@pytest.mark.parametrize("name", OURS)
def test_pycocoevalcap(vectors: dict[str, Vector], name: str) -> None:
    entry = vectors[name]
    found = bleu(entry["hyp"], entry["refs"], tokenize=str.split)
    scores = {f"Bleu_{n}": score for n, score in enumerate(found, 1)}
    # the original's ROUGE-L splits at every blank: two in a row hold an empty word, which its tokenizer never leaves
    scores["ROUGE_L"] = rouge_l(entry["hyp"], entry["refs"], tokenize=lambda text: text.split(" "))
    scores["CIDEr"] = cider(entry["hyp"], entry["refs"], tokenize=str.split)
    for metric in entry["expected"].keys() - {"METEOR"}:
        assert scores[metric] == near(entry["expected"][metric], entry), metric
    assert scores.keys() >= entry["expected"].keys() - {"METEOR"}


@needs_java
@pytest.mark.slow
def test_meteor(vectors: dict[str, Vector]) -> None:
    entry, *single = (vectors[name] for name in NEED_JAVA)
    assert meteor(entry["hyp"], entry["refs"], tokenize=str.split).score == near(entry["expected"]["METEOR"], entry)
    several = meteor([one["hyp"][0] for one in single], [one["refs"][0] for one in single], tokenize=str.split)
    for one, score in zip(single, several.answers, strict=True):
        assert score == near(one["expected"]["METEOR"], one), one["id"]


@needs_java
@pytest.mark.slow
def test_meteor_without_paraphrases(vectors: dict[str, Vector], folder: Path) -> None:
    entry = vectors[REPORTS]
    expected = dict(line.split("\t") for line in (folder / entry["segments_file"]).read_text().splitlines())
    found = meteor(entry["hyp"], entry["refs"], paraphrases=False, tokenize=str.split)
    assert found.score == pytest.approx(entry["expected"]["final"], rel=1e-12)
    assert len(found.answers) == entry["n"] == len(expected)
    for key, score in zip(entry["keys"], found.answers, strict=True):
        assert score == pytest.approx(float(expected[key]), rel=1e-12)
    # the counts beside it, by METEOR's formula for mean and penalty
    e = entry["expected"]
    assert e["fMean"] * (1 - e["frag"]) == pytest.approx(e["final"])


def google_words(text: str) -> list[str]:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).split()


@pytest.mark.parametrize("name", ROUGE)
def test_google_rouge(vectors: dict[str, Vector], name: str) -> None:
    entry = vectors[name]
    precision, recall = lcs_precision_recall(google_words(entry["hyp"][0]), google_words(entry["refs"][0][0]))
    assert precision == near(entry["expected"]["precision"], entry)
    assert recall == near(entry["expected"]["recall"], entry)
    score = rouge_l(entry["hyp"], entry["refs"], beta=1.0, tokenize=google_words)
    assert score == near(entry["expected"]["fmeasure"], entry)


def test_longest_common_subsequence(vectors: dict[str, Vector]) -> None:
    entry = vectors["g-lcs"]
    assert lcs_length(entry["lcs_a"], entry["lcs_b"]) == entry["expected"]["lcs"]


def words_13a(text: str) -> list[str]:
    """sacrebleu's 13a: punctuation apart, but for full stops and commas between digits; case counts."""
    text = re.sub(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])", r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([\.,])", r"\1 \2 ", text)
    return re.sub(r"([\.,])([^0-9])", r" \1 \2", text).split()


@pytest.mark.parametrize("name", BLEU)
def test_other_bleu_definitions(vectors: dict[str, Vector], name: str) -> None:
    # neither smooths where every order has a match, and the original's hair is below what they print
    entry = vectors[name]
    scale, tokenize = (100, words_13a) if name == "sb-13a" else (1, str.split)
    score = bleu(entry["hyp"], entry["refs"], tokenize=tokenize)[3]
    assert scale * score == near(entry["expected"]["BLEU"], entry)


@pytest.mark.parametrize("name", PRECISIONS)
def test_modified_precision(vectors: dict[str, Vector], name: str) -> None:
    entry = vectors[name]
    for n in (1, 2):
        found = []
        for answer, references in zip(entry["hyp"], entry["refs"], strict=True):
            hits, tried = clipped_ngrams(answer.split(), [text.split() for text in references], n)
            found.append(hits / tried)
        expected = entry["expected"][f"p{n}"]
        assert found == near(expected if isinstance(expected, list) else [expected], entry)


def test_brevity_penalty(vectors: dict[str, Vector]) -> None:
    cases = vectors["nltk-bp"]["cases"]
    assert len(cases) == 3
    for case in cases:
        wanted = closest_length(case["hyp"], case["refs"])
        assert brevity_penalty(case["hyp"], wanted) == pytest.approx(case["bp"], abs=5e-5)


def greedy_alignment(words: list[str], reference: list[str]) -> tuple[int, int]:
    """NLTK's own way: from the last word on, each takes the last equal one that is free; no chunks are saved."""
    free, pairs = dict(enumerate(reference)), []
    for i in reversed(range(len(words))):
        for j in sorted(free, reverse=True):
            if words[i] == free[j]:
                pairs.append((i, j))
                del free[j]
                break
    pairs.sort()
    chunks = sum(k == 0 or (i, j) != (pairs[k - 1][0] + 1, pairs[k - 1][1] + 1) for k, (i, j) in enumerate(pairs))
    return len(pairs), chunks


@pytest.mark.parametrize("name", GREEDY)
def test_nltk_meteor(vectors: dict[str, Vector], name: str) -> None:
    # no pair of these has a synonym or a stem to align, so that NLTK's first stage is all there is
    entry = vectors[name]
    answer, references = entry["hyp"][0].lower().split(), [text.lower().split() for text in entry["refs"][0]]
    score = max(fragmented_f(*greedy_alignment(answer, r), len(answer), len(r)) for r in references)
    assert score == near(entry["expected"]["METEOR"], entry)
    # ours is the same formula with the fewest chunks
    ours = meteor_exact_stem(entry["hyp"], entry["refs"], tokenize=str.split)
    assert ours >= score - 1e-12
    if name not in ("nltk-meteor-guide", "nltk-meteor-cat-reordered"):
        assert ours == near(entry["expected"]["METEOR"], entry)
    elif name == "nltk-meteor-cat-reordered":
        assert math.isclose(ours, 1 - 0.5 * (3 / 6) ** 3)  # "on the mat", "sat", "the cat"
