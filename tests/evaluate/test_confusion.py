from __future__ import annotations

from unibiomed.evaluate.confusion import RARE, count_predicted_labels, merge_rare_labels
from unibiomed.evaluate.sample_scores import SampleScore


def sample(true: list[str], predicted: list[str], failure: str | None = None) -> SampleScore:
    return SampleScore(
        "s/1#recognize", "recognize", "s", "CT", "s/1", 1, true_labels=true, predicted_labels=predicted, failure=failure
    )


def test_every_answer_is_counted_once():
    rows = [
        sample(["Liver tumor"], ["liver  tumor."]),
        sample(["liver tumor"], ["a cyst"]),
        sample(["liver tumor"], []),
        # a failure has no answer
        sample(["No findings"], ["No findings"], failure="no memory"),
        sample(["No findings"], ["Liver Tumor"]),
        # independent of the order
        sample(["Optic cup", "Optic disc"], ["optic disc", "optic cup"]),
        sample(["Optic disc", "Optic cup"], ["optic disc"]),
    ]
    counts = count_predicted_labels(rows)
    assert counts == {
        "liver tumor": {"(other)": 2, "liver tumor": 1},
        "No findings": {"(failure)": 1, "liver tumor": 1},
        "Optic cup + Optic disc": {"(other)": 1, "Optic cup + Optic disc": 1},
    }
    assert list(counts) == ["liver tumor", "No findings", "Optic cup + Optic disc"]
    matrix, labels, answers = merge_rare_labels(counts)
    assert labels == list(counts) and answers == [*labels, "(other)", "(failure)"]
    assert matrix.tolist() == [[1, 0, 0, 2, 0], [1, 0, 0, 0, 1], [0, 0, 1, 1, 0]]


def test_rare_labels_share_a_row_and_a_column():
    rows = [sample([label], [predicted]) for label, predicted in ("aa", "aa", "bb", "cc", "cc", "dd", "ab", "cb", "bx")]
    matrix, labels, answers = merge_rare_labels(count_predicted_labels(rows), limit=2)
    # numbers of images: a 3, c 3, b 2, d 1
    assert labels == ["a", "c", RARE] and answers == [*labels, "(other)"]
    assert matrix.tolist() == [[2, 0, 1, 0], [0, 2, 1, 0], [0, 0, 2, 1]]
    many = [(f"label {i:02d}", f"label {i:02d}") for i in range(50)]
    matrix, labels, _ = merge_rare_labels(
        count_predicted_labels(sample([true], [predicted]) for true, predicted in [*many, *many, ("rare", "rare")])
    )
    assert len(labels) == 49 and labels[-1] == RARE
    assert matrix.sum() == 101 and matrix[-1, -1] == 5


def test_no_answers():
    assert count_predicted_labels([]) == {}
    matrix, labels, answers = merge_rare_labels({})
    assert matrix.shape == (0, 0) and labels == answers == []
