"""Answers about whole volumes, by the tiny model and by a stub that thresholds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch

from unibiomed.errors import InputError
from unibiomed.findings.volume import VolumeFinding, VolumeGrid
from unibiomed.images import Volume, read_volume
from unibiomed.interpret import volume as volumes
from unibiomed.interpret.drawing import draw_masks
from unibiomed.interpret.vocabulary import ModelVocabulary
from unibiomed.interpret.volume import interpret_volume
from unibiomed.interpret.volume_findings import named_once, weigh_with_words
from unibiomed.interpret.volume_slices import ModelReader, model_digest
from unibiomed.tasks import make_question

NAMES = ("bright", "dark")


@pytest.fixture(scope="module")
def reading() -> ModuleType:
    """The tests of reading slices, whose reader stands for a model here too."""
    spec = importlib.util.spec_from_file_location(
        "volume_reading_tests", Path(__file__).with_name("test_volume_reading.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def phantom(tmp_path: Path) -> Volume:
    """(16, 14, 12) axial, axes of the file to the right, front and head."""
    values = np.random.default_rng(0).integers(0, 60, (12, 14, 16)).astype(np.int16)
    x, y, z = np.ogrid[:12, :14, :16]
    values[(x - 4) ** 2 + (y - 9) ** 2 + (z - 6) ** 2 < 10] = 250
    values[8:11, 2:5, 9:14] = 100
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "phantom.nii.gz")
    return read_volume(tmp_path / "phantom.nii.gz")


# ---------------------------------------------------------------- a stub with a vocabulary


class Asked:
    """Stands for a model that knows two targets."""

    name = "stub"
    vocabulary = ModelVocabulary({name: () for name in NAMES}, {}, {}, {"MRI": NAMES})

    class model:  # noqa: N801
        class config:  # noqa: N801
            scores_trained = False


ASK = {"threshold": 0.5, "modality": "MRI", "window": (127.5, 255.0), "smoothing_mm": 0.0}


@pytest.fixture
def stub(reading: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Asked:
    monkeypatch.setattr(volumes, "ModelReader", reading.Thresholds)
    return Asked()


def test_targets_in_a_volume(stub, phantom):
    result = interpret_volume(stub, phantom, targets=["dark", "bright", "unicorn"], **ASK)
    assert result.task == "segment"
    assert [f.present for f in result.findings] == [True, True, False] and not result.findings[2].searched
    assert "unicorn" in " ".join(result.notes)
    dark = result.findings[0]
    assert dark.volume_mm3 == 3 * 3 * 5 and dark.slice_range == (9, 13)
    assert result.sentences[0].text == (
        "Dark: one region of 45.0 mm³ on slices 9 to 13 (key slice 9); in the right posterior superior part of the "
        f"volume; longest axial diameter {dark.longest_diameter_mm:.1f} mm, perpendicular "
        f"{dark.perpendicular_diameter_mm:.1f} mm (slice 9); presence {100 * dark.presence:.1f} %."
    )
    assert result.sentences[2].text == "Unicorn: not searched." and not result.sentences[2].grounded
    assert [one.grounded for one in result.sentences] == [True, True, False]


def test_findings_of_a_volume(stub, phantom):
    found = interpret_volume(stub, phantom, "recognize", **ASK)
    assert {f.label for f in found.findings} == set(NAMES) and len(found.searched) == 2
    provenance = found.provenance
    assert provenance["slices_read"] == [0, 16] and len(provenance["voxels_sha256"]) == 64
    assert provenance["window"] == [127.5, 255.0] and provenance["modality_source"] == "given"
    nothing = interpret_volume(stub, phantom, "report", slices=(14, 16), **ASK)
    assert nothing.findings == () and nothing.text == "No findings."
    assert [one.label for one in nothing.searched] == list(NAMES)


@pytest.mark.parametrize(
    ("task", "question", "words"),
    [
        ("segment", {"targets": ["dark"], "slices": (3, 30)}, "choose within 0:16"),
        ("segment", {"targets": ["dark"] * 65}, "at most 64"),
        ("classify", {}, "needs a box"),
        ("recognize", {"modality": "PET"}, "needs a modality and a model that names its abnormal targets"),
        ("recognize", {"modality": "smell"}, "unknown modality"),
        ("segment", {"targets": ["dark"], "window": "kitchen"}, "unknown window"),
    ],
)
def test_questions_that_cannot_be_asked(stub, phantom, task, question, words):
    with pytest.raises(InputError, match=words):
        interpret_volume(stub, phantom, task, **{**ASK, **question})


def test_too_many_slices(stub, tmp_path):
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 5200), np.uint8), np.eye(4)), tmp_path / "long.nii.gz")
    with pytest.raises(InputError, match="choose at most 5000 with --slices"):
        interpret_volume(stub, read_volume(tmp_path / "long.nii.gz"), targets=["dark"], **ASK)


@pytest.mark.parametrize("shape", [(9, 8, 1), (9, 8, 3)])
def test_nan_everywhere_and_a_single_slice(stub, tmp_path, shape):
    values = np.full(shape, np.nan, np.float32)
    nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / "nan.nii")
    result = interpret_volume(
        stub, read_volume(tmp_path / "nan.nii"), targets=["bright"], threshold=0.5, modality="MRI"
    )
    assert not result.findings[0].present
    assert any("nothing can be found on them" in note for note in result.notes)


def test_one_name_for_one_region():
    grid = VolumeGrid((2, 4, 4), (1.0, 1.0, 1.0), "axial", np.eye(4))
    mask = np.zeros(grid.shape, bool)
    mask[0, :2] = True
    other = mask.copy()
    other[0, 2, 0] = True
    apart = np.zeros(grid.shape, bool)
    apart[1, 3] = True
    made = [
        VolumeFinding.from_mask(name, m, grid, presence=p)
        for name, m, p in (("glioma", mask, 0.9), ("tumor", other, 0.8), ("cyst", apart, 0.7))
    ]
    kept, notes = named_once(made)
    assert [one.label for one in kept] == ["glioma", "cyst"]
    assert notes == ["the region of 'glioma' was also found as 'tumor' (presence 0.80)"]


# ---------------------------------------------------------------- the tiny model


def test_slices_are_read_as_single_images_are(interpreter, phantom):
    """Prompts in one pass equal those of word-by-word answers, and so do presence and masks."""
    names = ["liver", "a mass in the left lung", "liver tumor"]
    images = [phantom.slice_image(k, (127.5, 255.0)) for k in range(5)]
    reader = ModelReader(interpreter, names, "CT", batch=3)
    seg = interpreter.model.config.seg_token_id
    # random weights write nonsense: the answer is given, so that what follows from it can be compared
    answer = [*interpreter.processor.encode("It is "), seg]
    reader._answers = [answer] * len(names)
    readings = reader.read(images[:3]) + reader.read(images[3:])
    assert len(readings) == 5
    from unibiomed.model.generation import Answer

    for image, reading in zip(images, readings, strict=True):
        encoded = interpreter.encode(image)
        states = []
        for name in names:
            question = make_question("segment", target=name, modality="CT")
            ids = torch.tensor([[*interpreter.processor.prompt_ids(question, encoded.tokens), *answer]])
            embeds = interpreter.model.embed(ids, encoded.features.tokens)
            with torch.inference_mode():
                hidden = interpreter.model.mllm.model.language_model(inputs_embeds=embeds).last_hidden_state[:, -1]
                states.append(interpreter.model.grounding_head(hidden))
        drawn = draw_masks(interpreter, encoded, [Answer(prompts=state) for state in states])
        assert reading.presence == pytest.approx([one.presence for one in drawn], abs=1e-4)
        margins = reading.decode(range(len(names)))
        for margin, one in zip(margins, drawn, strict=True):
            mask = reader.resize(margin, (image.height, image.width)) > 0
            assert np.mean(mask != one.mask) <= 0.01


def test_what_the_model_writes_by_itself(interpreter, phantom):
    """A model of random weights writes no [SEG]: every slice is asked word by word, and nothing is found."""
    reader = ModelReader(interpreter, ["liver"], None, batch=2)
    readings = reader.read([phantom.slice_image(k, (127.5, 255.0)) for k in range(2)])
    assert len(readings) == 2 and reader._answers is not None
    if reader._answers == [None]:
        assert all(len(reading.decode([0])) == 1 for reading in readings)


def test_the_digest_tells_models_apart(interpreter, shared_interpreter):
    one = model_digest(interpreter.model)
    assert one == model_digest(shared_interpreter.model) and len(one) == 16
    parameter = next(interpreter.model.parameters())
    with torch.no_grad():
        parameter.view(-1)[0] += 1
        changed = model_digest(interpreter.model)
        parameter.view(-1)[0] -= 1
    assert changed != one
    assert ModelReader(interpreter, ["liver"], "CT").digest != ModelReader(interpreter, ["liver"], "MRI").digest


def test_a_volume_object_is_interpreted(interpreter, script, phantom, monkeypatch):
    script.says = lambda question: "It is [SEG]."
    seen = []
    plain = volumes.read_findings
    monkeypatch.setattr(volumes, "read_findings", lambda *a, **k: seen.append((a, k)) or plain(*a, **k))
    result = interpreter.interpret(phantom, targets="liver", modality="CT", slices=(2, 5), window=(127.5, 255.0))
    ((arguments, options),) = seen
    assert arguments[2] == range(2, 5) and options["threshold"] == interpreter.score_threshold
    assert result.task == "segment"
    # one slice of it is a picture
    single = interpreter.interpret(phantom, targets="liver", modality="CT", slice_index=3, window=(127.5, 255.0))
    assert single.details["slice"] == 3 and single.height == 14


def test_words_may_deny_a_finding(interpreter, phantom, monkeypatch):
    mask = np.zeros(phantom.values.shape, bool)
    mask[4, 3:6, 3:6] = True
    grid = VolumeGrid(mask.shape, (1.0, 1.0, 1.0), "axial", np.eye(4))
    found = VolumeFinding.from_mask("liver tumor", mask, grid, presence=0.6)
    monkeypatch.setattr(interpreter.model.config, "finding_threshold", 0.0)
    for none, kept in ((np.log(0.9), 0), (np.log(0.1), 1)):
        monkeypatch.setattr("unibiomed.interpret.volume_findings.word_logits", lambda *_, none=none: [none])
        left, notes = weigh_with_words(interpreter, [found], lambda k: phantom.slice_image(k, (127.5, 255.0)), "CT")
        assert len(left) == kept and len(notes) == 1 - kept
    assert "on its key slice 4" in notes[0] if notes else True
