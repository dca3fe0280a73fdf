from __future__ import annotations

import pytest

from unibiomed.errors import DataError
from unibiomed.evaluate.suite import BUILT_IN, Perturbations, Suite, read_suite
from unibiomed.tasks import TASKS


@pytest.mark.parametrize("name", BUILT_IN)
def test_those_built_in_are_readable(name):
    suite = read_suite(name)
    assert suite.name == name and suite.title
    assert suite.split == "test" and set(suite.tasks) <= set(TASKS)


def test_fields_of_the_command_line_go_first(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlimit = 7\ndatasets = ["a"]\n[changes]\nnames = ["blur"]\n')
    assert read_suite(str(path)).limit == 7
    suite = read_suite(str(path), {"limit": 2, "tasks": ["ask"]})
    assert (suite.limit, suite.tasks, suite.datasets) == (2, ["ask"], ["a"])
    assert suite.perturbations == Perturbations(["blur"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('nam = "x"', "key 'nam' of the suite is unknown"),
        ('title = "x"', "lacks a key"),
        ('name = "a b"', "suite name 'a b'"),
        ('name = "x"\nsplit = "dev"', "split 'dev' is unknown"),
        ('name = "x"\ntasks = ["segment", "guess"]', "task 'guess' is unknown"),
        ('name = "x"\ntasks = "segment"', "key 'tasks' of the suite has the wrong type"),
        ('name = "x"\nlimit = -1', "limit is negative"),
        ('name = "x"\n[pairs]\nlimit = -1', "limit is negative"),
        ('name = "x"\n[pairs]\nnumber = 1', "key 'number' of pairs is unknown"),
        ('name = "x"\n[changes]\nnames = ["noise", "fog"]', "change 'fog' is unknown"),
        ('name = "x"\n[changes]\nstrength = 1', "key 'strength' of changes is unknown"),
        ('name = "x"\nchanges = true', "changes is not a table"),
        ('name = "x"\n[volumes]\nheart = "_slice_"', "need exactly one group"),
        ('name = "x"\n[volumes]\nheart = "("', "volumes of 'heart'"),
        ('name = "x"\n[paraphrases]\nguess = ["?"]', "task 'guess' is unknown"),
        ('name = "x"\n[paraphrases]\nsegment = ["Show {organ}."]', "paraphrase 'Show {organ}.' cannot be filled in"),
        ('name = "x"\n[paraphrases]\nsegment = ["Show {"]', "cannot be filled in"),
        ('name = "x"\n[paraphrases]\nsegment = [1]', "'paraphrases' of the suite has the wrong type"),
        ('name = "x"\n[paraphrases]\nask = ["Answer."]', "'ask' cannot be asked in other words"),
        ('name = "x"\n[paraphrases]\nreport = ["Tell."]', "'report' cannot be asked in other words"),
        ('name = "x"\ntasks = []', "suite 'x' asks nothing"),
        ('name = "x"\ntasks = ["ask", "ask"]', "task 'ask' is named twice"),
        ('name = "x"\ndatasets = ["a", "b", "a"]', "data set 'a' is named twice"),
        ('name = "x"\n[changes]\nnames = ["noise", "noise"]', "change 'noise' is named twice"),
        ("name = ", "mine.toml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, one_line, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_suite(str(path))
    assert words in str(caught.value) and "mine.toml" in str(caught.value)
    one_line(caught.value)


def test_a_wrong_field_of_the_command_line_is_named():
    with pytest.raises(DataError, match="task 'guess' is unknown"):
        read_suite("shared", {"tasks": ["guess"]})


def test_no_such_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="'nothing' is no suite"):
        read_suite("nothing")


def test_volumes():
    suite = Suite("x", volumes={"heart": r"^(.+)_slice_\d+$"})
    assert suite.volume_of("heart", "p1_slice_3") == "p1"
    assert suite.volume_of("heart", "p1") is None
    assert suite.volume_of("lung", "p1_slice_3") is None
