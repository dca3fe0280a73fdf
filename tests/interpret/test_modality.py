"""The modality of an image that comes without one, and images that look like none."""

from __future__ import annotations

import numpy as np
import pytest

from unibiomed.interpret import load
from unibiomed.interpret.interpreter import NOT_INTERPRETED
from unibiomed.interpret.modality import MIN_LIKENESS, MIN_PROBABILITY, find_modality


class _Asker:
    """Answers the question for the modality with a given text and probability."""

    def __init__(self, text: str, probability: float) -> None:
        self.text, self.probability, self.asked = text, probability, 0

    def answer(self, encoded, questions, **options):
        from unibiomed.model.generation import Answer

        self.asked += 1
        return [Answer(text=self.text, probabilities=[self.probability])]


class _Encoded:
    recognized = None


@pytest.mark.parametrize(
    ("text", "probability", "name", "unlike"),
    [
        ("CT", 0.99, "CT", False),
        ("CT", MIN_PROBABILITY - 0.01, None, False),
        ("CT", MIN_LIKENESS - 0.01, None, True),
        ("A cat", 0.99, None, False),
        ("A cat", 0.1, None, True),
    ],
)
def test_a_modality_is_used_where_it_is_sure(text: str, probability: float, name: str | None, unlike: bool) -> None:
    asker, encoded = _Asker(text, probability), _Encoded()
    found = find_modality(asker, encoded)  # type: ignore[arg-type]
    assert (found.name, found.unlike) == (name, unlike)
    assert found.note is not None and (name is None or name in found.note)
    assert find_modality(asker, encoded) == found and asker.asked == 1  # type: ignore[arg-type]


def test_a_picture_of_no_modality_is_not_interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load()
    picture = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    encoded = model.encode(picture)
    encoded.recognized = "fundus", 0.2
    for task in ("recognize", "report"):
        result = model.interpret(encoded, task)
        assert result.text == NOT_INTERPRETED and not result.findings
        assert any("give it with --modality" in note for note in result.notes)
    assert model.interpret(encoded, "recognize", modality="fundus").findings
