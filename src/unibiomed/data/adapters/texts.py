"""Images with tables of questions or captions, and reports without images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from unibiomed.data.adapters.common import (
    Row,
    Tell,
    base_record,
    cell_text,
    find_places,
    list_images,
    refuse,
    tidy,
    without_ending,
)
from unibiomed.data.adapters.tables import (
    QUESTION_COLUMNS,
    asked_columns,
    iter_rows,
    note_split,
    only_asked,
    rows_by_image,
)
from unibiomed.data.entries import DatasetEntry
from unibiomed.data.records import QuestionAnswer, Record
from unibiomed.errors import DataError

HIDDEN_WORD = "XXXX"
# "Is this an MRI?" names a modality that the image need not be.
ASKS_WHAT_IMAGE = re.compile(r"(is|was|are|were) (this|these|the (image|study|scan|film))\b", re.IGNORECASE)


def read_questions(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``questions``, see `unibiomed.data.entries`."""
    items = list_images(entry, tell=tell)
    column = {name: entry.columns.get(name, name) for name in QUESTION_COLUMNS}
    found, official = rows_by_image(entry, items, (column["question"], column["answer"]), tell)
    asked: dict[tuple[str, str], list[QuestionAnswer]] = defaultdict(list)
    words: dict[str, list[str]] = defaultdict(list)
    places = find_places(entry, {name: rows[0][1] for name, rows in found.items()}, official)
    numbered = 0
    for name, rows in found.items():
        for table, row in rows:
            numbered += 1
            asks = str(row[column["question"]])
            if not ASKS_WHAT_IMAGE.match(tidy(asks)):
                words[name].append(asks)
            if name in places:
                own = table.split if entry.shared_images and not entry.external else None
                asked[name, own or places[name].split].append(
                    _question(
                        asks,
                        str(row[column["answer"]]),
                        cell_text(row.get(column["answer_type"])),
                        cell_text(row.get(column["qid"])) or numbered,
                    )
                )
    for (name, split), questions in sorted(asked.items(), key=lambda item: item[0]):
        row = found[name][0][1]
        told = _modality_in_words(entry, words[name])
        known = base_record(entry, name, places[name], row)
        source = "words of the questions" if told else "usual for the organ"
        yield Record(
            image=items[name].path,
            questions=tuple(questions),
            **known
            | {
                # An image may be shared between train and test, so the split is part of the key.
                "key": f"{entry.name}/{name}.{split}",
                "split": split,
                "modality": told or known["modality"],
                "attributes": known["attributes"] | ({"modality source": source} if entry.modality_words else {}),
            },
        )


def _question(question: str, answer: str, kind: str, qid: object) -> QuestionAnswer:
    kind = kind.strip().lower()
    if not kind:
        kind = "closed" if tidy(answer).lower().rstrip(".") in ("yes", "no") else "open"
    return QuestionAnswer(tidy(question), tidy(answer), kind, str(qid))


def _modality_in_words(entry: DatasetEntry, questions: Sequence[str]) -> str | None:
    """The one modality that an image's questions name; None where they name none or disagree."""
    named = {
        modality
        for words, modality in entry.modality_words.items()
        if any(re.search(words, question, re.IGNORECASE) for question in questions)
    }
    return named.pop() if len(named) == 1 else None


def read_captions(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``captions``, see `unibiomed.data.entries`."""
    if not entry.text:
        raise DataError(f"{entry.name}: adapter 'captions' needs the columns with the words; name them in text = []")
    items = list_images(entry, tell=tell)
    found, official = rows_by_image(entry, items, tell=tell)
    told = {name: text for name, rows in found.items() if (text := image_text(entry, [row for _, row in rows]))}
    for name, place in sorted(find_places(entry, {name: found[name][0][1] for name in told}, official).items()):
        yield Record(image=items[name].path, text=told[name], **base_record(entry, name, place, found[name][0][1]))


def image_text(entry: DatasetEntry, rows: Sequence[Row]) -> str:
    """What the text columns of an image's rows say, nothing twice; with their names where there are several."""
    texts = []
    for row in rows:
        parts = [(name, readable(cell_text(row.get(name)))) for name in entry.text]
        said = [f"{name.capitalize()}: {words}" if len(parts) > 1 else words for name, words in parts if words]
        texts.append(" ".join(said))
    return " ".join(dict.fromkeys(text for text in texts if text))


def read_reports(entry: DatasetEntry, tell: Tell = refuse) -> Iterator[Record]:
    """Records of the adapter ``reports``, see `unibiomed.data.entries`."""
    found: dict[str, list[Row]] = defaultdict(list)
    official: dict[str, str] = {}
    columns = asked_columns(entry)
    for table in entry.tables:
        for row in iter_rows(entry, table, tell=tell):
            if image_text(entry, [row]):
                name = without_ending(row[table.key])
                note_split(official, entry, table, name, tell)
                found[name].append(only_asked(row, columns))
    for name, place in sorted(find_places(entry, {name: rows[0] for name, rows in found.items()}, official).items()):
        rows = found[name]
        yield Record(image=None, text=image_text(entry, rows), **base_record(entry, name, place, rows[0]))


def readable(words: str) -> str:
    """Report text without the sentences in which de-identification has blotted out a word."""
    sentences = re.split(r"(?<=[.!?])\s+", tidy(words))
    return " ".join(sentence for sentence in sentences if HIDDEN_WORD not in sentence).replace("..", ".")
