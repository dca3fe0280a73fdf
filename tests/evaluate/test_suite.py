from __future__ import annotations

import pytest

from unibiomed.errors import DataError
from unibiomed.evaluate.suite import BUILT_IN, PerturbationOptions, Suite, read_suite
from unibiomed.tasks import TASKS


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_suites(name):
    suite = read_suite(name)
    assert suite.name == name and suite.title
    assert suite.split == "test" and set(suite.tasks) <= set(TASKS)


def test_overrides(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nlimit = 7\ndatasets = ["a"]\n[perturbations]\nnames = ["blur"]\n')
    assert read_suite(str(path)).limit == 7
    suite = read_suite(str(path), {"limit": 2, "tasks": ["ask"]})
    assert (suite.limit, suite.tasks, suite.datasets) == (2, ["ask"], ["a"])
    assert suite.perturbations == PerturbationOptions(["blur"])


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
        ('name = "x"\n[perturbations]\nnames = ["noise", "fog"]', "perturbation 'fog' is unknown"),
        ('name = "x"\n[perturbations]\nstrength = 1', "key 'strength' of perturbations is unknown"),
        ('name = "x"\nperturbations = true', "perturbations is not a table"),
        ('name = "x"\n[volumes]\nheart = "_slice_"', "has 0 groups: give exactly one"),
        ('name = "x"\n[volumes]\nheart = "("', "pattern of volumes of 'heart'"),
        ('name = "x"\n[paraphrases]\nguess = ["?"]', "task 'guess' is unknown"),
        (
            'name = "x"\n[paraphrases]\nsegment = ["Show {organ}."]',
            "paraphrase 'Show {organ}.' has unknown placeholders",
        ),
        ('name = "x"\n[paraphrases]\nsegment = ["Show {"]', "has unknown placeholders"),
        ('name = "x"\n[paraphrases]\nsegment = [1]', "'paraphrases' of the suite has the wrong type"),
        ('name = "x"\n[paraphrases]\nask = ["Answer."]', "task 'ask' cannot have paraphrases"),
        ('name = "x"\n[paraphrases]\nreport = ["Tell."]', "task 'report' cannot have paraphrases"),
        ('name = "x"\ntasks = []', "suite 'x': there are no tasks"),
        ('name = "x"\ntasks = ["ask", "ask"]', "task 'ask' is listed twice"),
        ('name = "x"\ndatasets = ["a", "b", "a"]', "data set 'a' is listed twice"),
        ('name = "x"\n[perturbations]\nnames = ["noise", "noise"]', "perturbation 'noise' is listed twice"),
        ("name = ", "mine.toml"),
    ],
)
def test_invalid_suites(tmp_path, one_line, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        read_suite(str(path))
    assert words in str(caught.value) and "mine.toml" in str(caught.value)
    one_line(caught.value)


def test_invalid_overrides():
    with pytest.raises(DataError, match="task 'guess' is unknown"):
        read_suite("shared", {"tasks": ["guess"]})


def test_unknown_suite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="suite 'nothing' not found"):
        read_suite("nothing")


def test_volumes():
    suite = Suite("x", volumes={"heart": r"^(.+)_slice_\d+$"})
    assert suite.volume_of("heart", "p1_slice_3") == "p1"
    assert suite.volume_of("heart", "p1") is None
    assert suite.volume_of("lung", "p1_slice_3") is None


def test_deprecated_keys(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text('name = "old"\nforeign = false\n[changes]\nnames = ["blur"]\n')
    with pytest.warns(FutureWarning) as warnings:
        suite = read_suite(str(path))
    messages = sorted(str(warning.message) for warning in warnings)
    assert [message.partition(" is deprecated")[0] for message in messages] == [
        "key 'changes' of old.toml",
        "key 'foreign' of old.toml",
    ]
    assert not suite.out_of_context and suite.perturbations == PerturbationOptions(["blur"])
