"""Words, BLEU, ROUGE-L, CIDEr and METEOR by hand, by brute force, and against the original where it is installed."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unibiomed.errors import InputError
from unibiomed.metrics.language import bleu, cider, meteor, meteor_exact_stem, meteor_java, ptb_words, rouge_l
from unibiomed.metrics.language.bleu import brevity_penalty, closest_length
from unibiomed.metrics.language.meteor_stem import align, fragmented_f
from unibiomed.metrics.language.rouge import lcs_length

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=7)
TEXTS = WORDS.map(" ".join)
CORPORA = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4)

# what Stanford's lexer (3.4.1, by pycocoevalcap's own command) gives, less the punctuation that pycocoevalcap drops
TOKENIZED = {
    "The heart's size isn't normal; (see above) \"quoted text\" - no effusion.": (
        "the heart 's size is n't normal -lrb- see above -rrb- quoted text no effusion"
    ),
    "T8-T9 vertebral bodies, 3.5 cm x 2.0 cm, 50% loss. Dr. Smith said so.": (
        "t8-t9 vertebral bodies 3.5 cm x 2.0 cm 50 % loss dr. smith said so"
    ),
    "right-sided PICC line... can't exclude pneumonia/atelectasis & edema": (
        "right-sided picc line ca n't exclude pneumonia/atelectasis & edema"
    ),
    "[SEG] <p> Liver tumor </p> {a} 10:30 p.m. e.g. 1,000": (
        "-lsb- seg -rsb- <p> liver tumor </p> -lcb- a -rcb- 10:30 p.m. e.g. 1,000"
    ),
    "No acute disease.No effusion. XXXX-XXXX cannot 2/3 10/12/2010": (
        "no acute disease.no effusion xxxx-xxxx can not 2/3 10/12/2010"
    ),
    "2.5cm 2.5-cm 5x5cm 98.6°F x² µm 12:30pm ≥5 5–10": "2.5 cm 2.5-cm 5x5cm 98.6 ° f x ² µm 12:30 pm ≥ 5 5 10",
    "Calcinosis/lung/hilum/lymph nodes": "calcinosis/lung/hilum / lymph nodes",
    "Mass. a mass. No. 5, no. etc. 5 y.o. male, AT&T": "mass. a mass no. 5 no etc. 5 y.o. male at&t",
    "really?! yes!!! it’s &lt; 3 — so … well": "really ?! yes !!! it 's < 3 so well",
    " \n\t ": "",
}


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(("text", "words"), TOKENIZED.items())
def test_words_match_the_lexer(text: str, words: str) -> None:
    assert ptb_words(text) == words.split()


@given(st.text(max_size=60))
def test_any_text_is_tokenised(text: str) -> None:
    words = ptb_words(text)
    assert all(word and word == word.strip() for word in words)
    assert ptb_words(f"left {text} lung.")[:1] == ["left"]


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("java") and find_spec("pycocoevalcap")), reason="needs Java and pycocoevalcap")
def test_words_of_real_reports_match_the_original(shared_data: Path) -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    with (shared_data / "iu_xray_reports" / "indiana_reports.csv").open(newline="", encoding="utf-8") as file:
        texts = [" ".join(row[part].split()) for row in csv.DictReader(file) for part in ("findings", "impression")]
    texts += [turn["question"] for turn in json.loads((shared_data / "vqa_rad" / "test.json").read_text())]
    texts = [text for text in dict.fromkeys(texts) if text]
    theirs = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    other = [text for i, text in enumerate(texts) if ptb_words(text) != theirs[i][0].split()]
    assert len(texts) > 4500 and len(other) <= 4


# ---------------------------------------------------------------- all of them


@given(CORPORA)
def test_bounds(corpus: list[tuple[str, list[str]]]) -> None:
    answers, references = zip(*corpus, strict=True)
    for score in (*bleu(answers, references), rouge_l(answers, references), cider(answers, references) / 10):
        assert 0 <= score <= 1 + 1e-9
    assert 0 <= meteor_exact_stem(answers, references) <= 1


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=4, max_size=9).map(" ".join), min_size=1))
def test_reference_has_the_best_score(texts: list[str]) -> None:
    references = [["z z z", text] for text in texts]
    assert bleu(texts, references) == pytest.approx((1, 1, 1, 1), abs=1e-6)
    assert rouge_l(texts, references) == pytest.approx(1)
    for text in texts:
        words = len(text.split())
        assert meteor_exact_stem([text], [[text]]) == pytest.approx(1 - 0.5 / words**3)


@pytest.mark.parametrize("metric", [bleu, rouge_l, cider, meteor, meteor_exact_stem])
def test_invalid_arguments(metric: object) -> None:
    with pytest.raises(InputError, match="2 hypotheses, 1 references"):
        metric(["a", "b"], [["a"]])  # type: ignore[operator]
    with pytest.raises(InputError, match="an answer has no references"):
        metric(["a"], ["a"])  # type: ignore[operator]
    with pytest.raises(InputError, match="an answer has no references"):
        metric(["a"], [[]])  # type: ignore[operator]
    with pytest.raises(InputError, match="is not a string"):
        metric(["a"], [[float("nan")]])  # type: ignore[operator]


def test_no_answers() -> None:
    assert all(math.isnan(score) for score in bleu([], []))
    assert all(math.isnan(metric([], [])) for metric in (rouge_l, cider, meteor_exact_stem))
    assert math.isnan(meteor([], []).score)


@settings(max_examples=60)
@given(CORPORA)
def test_scores_match_pycocoevalcap(corpus: list[tuple[str, list[str]]]) -> None:
    original = pytest.importorskip("pycocoevalcap.bleu.bleu")
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    # an empty text is one empty word to the original's ROUGE-L
    corpus = [(answer or "x", [text or "y" for text in several]) for answer, several in corpus]
    answers, references = zip(*corpus, strict=True)
    given_, wanted = {i: [a] for i, a in enumerate(answers)}, dict(enumerate(references))
    assert bleu(answers, references) == pytest.approx(
        original.Bleu(4).compute_score(wanted, given_, verbose=0)[0], rel=1e-9
    )
    assert rouge_l(answers, references) == pytest.approx(Rouge().compute_score(wanted, given_)[0])
    assert cider(answers, references) == pytest.approx(Cider().compute_score(wanted, given_)[0], abs=1e-9)


# ---------------------------------------------------------------- one by one


def test_bleu_by_hand() -> None:
    # "the cat" of five words against four: 4 of 5 words, 3 of 4 pairs; longer than its reference
    scores = bleu(["the cat sat down there"], [["the cat sat down"]], max_n=2)
    assert scores == pytest.approx((4 / 5, math.sqrt(4 / 5 * 3 / 4)))
    # too short by half
    assert bleu(["the cat"], [["the cat sat down"]])[0] == pytest.approx(math.exp(-1))
    assert bleu([""], [["the cat"]]) == pytest.approx((0, 0, 0, 0), abs=1e-6)
    with pytest.raises(InputError, match="max_n is 0"):
        bleu(["a"], [["a"]], max_n=0)


def test_bleu_sums_counts_over_the_corpus() -> None:
    # 1 of 1 and 1 of 3 words are 2 of 4, not a mean of 2 in 3
    assert bleu(["a", "a x x"], [["a"], ["a b c"]], max_n=1)[0] == pytest.approx(0.5)


def test_lengths() -> None:
    assert closest_length(4, [5, 3, 9]) == 3 and closest_length(4, [9, 5]) == 5
    assert brevity_penalty(5, 5) == brevity_penalty(6, 5) == 1.0 and brevity_penalty(0, 5) == 0.0
    assert brevity_penalty(4, 5) == pytest.approx(math.exp(-0.25))


@given(WORDS, WORDS)
def test_longest_common_subsequence(a: list[str], b: list[str]) -> None:
    def is_within(row: tuple[str, ...], text: list[str]) -> bool:
        rest = iter(text)
        return all(word in rest for word in row)

    rows = (row for n in range(len(a), -1, -1) for row in itertools.combinations(a, n))
    assert lcs_length(a, b) == lcs_length(b, a) == len(next(row for row in rows if is_within(row, b)))


def test_rouge_by_hand() -> None:
    # precision 3/4 from the first reference, recall 2/2 from the second
    score = rouge_l(["a b c d"], [["a b c x x x", "a b"]])
    assert score == pytest.approx((1 + 1.44) * 0.75 / (1 + 1.44 * 0.75))
    assert rouge_l([""], [[""]]) == 1.0 and rouge_l(["a"], [[""]]) == rouge_l([""], [["a"]]) == 0.0
    with pytest.raises(InputError, match="beta"):
        rouge_l(["a"], [["a"]], beta=0)


def test_cider_weights_rare_ngrams() -> None:
    references = [["the lungs are clear"], ["the heart is large"], ["the spine is straight"]]
    common = cider(["the x x x", "y", "z"], references)
    rare = cider(["clear x x x", "y", "z"], references)
    assert common == 0.0 < rare
    assert cider([text for (text,) in references], references) == pytest.approx(10)
    assert cider(["a b"], [["a b"]]) == 0.0  # one image: nothing is rare


def fewest_chunks(words: list[str], reference: list[str]) -> tuple[int, int]:
    """Every alignment there is: the most words, and the fewest chunks of those."""
    best = (0, 0)

    def go(i: int, pairs: tuple[tuple[int, int], ...]) -> None:
        nonlocal best
        if i == len(words):
            chunks = sum((a - 1, b - 1) not in pairs for a, b in pairs)
            if (len(pairs), -chunks) > (best[0], -best[1]):
                best = (len(pairs), chunks)
            return
        go(i + 1, pairs)
        for j, other in enumerate(reference):
            if other == words[i] and all(j != b for _, b in pairs):
                go(i + 1, (*pairs, (i, j)))

    go(0, ())
    return best


@settings(max_examples=50)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=6), st.lists(st.sampled_from(["a", "b", "c"]), max_size=6))
def test_alignment_is_optimal(words: list[str], reference: list[str]) -> None:
    assert align(words, reference) == fewest_chunks(words, reference)


def test_meteor_with_stems_by_hand() -> None:
    # "effusions" has the stem of "effusion": 3 of 3 words and of 4, in the chunks "no pleural" and "effusions"
    score = meteor_exact_stem(["No pleural effusions"], [["no pleural large effusion"]])
    assert score == pytest.approx(0.75 / (0.9 + 0.1 * 0.75) * (1 - 0.5 * (2 / 3) ** 3))
    assert meteor_exact_stem(["clear"], [["effusion"]]) == 0.0
    assert meteor_exact_stem(["clear"], [["effusion", "clear"]]) == 0.5  # one word is one chunk of one
    assert fragmented_f(0, 0, 0, 0) == 1.0 and fragmented_f(0, 0, 0, 3) == 0.0


def test_alignment_of_long_reports_is_fast() -> None:
    rng = np.random.default_rng(0)
    words = [str(word) for word in rng.choice(["the", "is", "of", "lung", "no", "and"], 300)]
    assert align(words, words) == (300, 1)
    assert align(words, words[::-1])[0] == 300


# ---------------------------------------------------------------- what must be installed


def test_without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_java, "_jar", lambda: Path("meteor-1.5.jar"))
    monkeypatch.setattr(meteor_java.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="needs Java: install default-jre-headless"):
        meteor(["a"], [["a"]])


def test_without_pycocoevalcap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_java, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs pycocoevalcap: run pip install 'unibiomed\[meteor\]'"):
        meteor(["a"], [["a"]])


def test_java_program_that_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meteor_java, "_jar", lambda: Path("meteor-1.5.jar"))
    monkeypatch.setattr(meteor_java.shutil, "which", lambda name: "false")
    with pytest.raises(InputError, match=r"METEOR 1\.5 stopped"):
        meteor(["a"], [["a"]])


def test_without_snowballstemmer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "snowballstemmer", None)
    with pytest.raises(InputError, match=r"needs snowballstemmer: run pip install 'unibiomed\[evaluate\]'"):
        meteor_exact_stem(["a"], [["a"]])
