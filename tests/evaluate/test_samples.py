from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from unibiomed.data import load_records
from unibiomed.data.records import Record
from unibiomed.errors import DataError, OutputError
from unibiomed.evaluate import record_selection
from unibiomed.evaluate.perturbations import perturb_image, perturb_mask
from unibiomed.evaluate.record_selection import draw_records, missing_datasets, suite_records
from unibiomed.evaluate.sample_export import write_samples
from unibiomed.evaluate.samples import BACKGROUND_BOX, Case, Partition, make_cases
from unibiomed.evaluate.suite import PerturbationOptions, Suite
from unibiomed.tasks import SEG
from unibiomed.terminology import absent_targets


def test_samples_are_reproducible(toy_cases):
    first = toy_cases(perturbations=PerturbationOptions())
    assert first == toy_cases(perturbations=PerturbationOptions())
    ids = [sample.id for case in first for sample in case.samples]
    assert len(ids) == len(set(ids)) > 100


def test_absent_and_out_of_context_targets(toy_cases):
    cases = toy_cases(datasets=["organs"], tasks=["segment"])
    assert [case.record.key for case in cases] == ["organs/test_0", "organs/test_1", "organs/test_2"]
    assert [case.image_index for case in cases] == [0, 1, 2]
    areas = {}
    for case in cases:
        in_context, other = case.samples[:-1], case.samples[-1]
        assert [s.target for s in in_context] == ["liver", "liver tumor"]
        assert {s.kind for s in in_context} == {"in_context"}
        assert other.kind == "out_of_context" and other.regions == (None,)
        assert other.target in absent_targets("CT", "abdomen")
        size = case.pixels().shape[:2]
        masks = case.masks(size)
        truths = [case.truths(sample, masks, size) for sample in case.samples]
        assert all(len(t) == 1 and t[0].shape == size for t in truths)
        areas[case.record.key] = [int(t[0].sum()) for t in truths]
    assert all(areas["organs/test_0"][:2]) and areas["organs/test_0"][2] == 0
    assert areas["organs/test_1"][0] and areas["organs/test_1"][1:] == [0, 0]
    assert areas["organs/test_2"] == [0, 0, 0]
    alone = toy_cases(datasets=["organs"], tasks=["segment"], out_of_context=False)
    assert [s.kind for case in alone for s in case.samples] == ["in_context"] * 6


def test_out_of_context_target_depends_on_the_seed(toy_cases):
    targets = {
        seed: [case.samples[-1].target for case in toy_cases(datasets=["organs"], tasks=["segment"], seed=seed)]
        for seed in range(4)
    }
    assert len({tuple(found) for found in targets.values()}) > 1


def test_samples_of_each_task(toy_cases):
    full, healthy = (toy_cases(datasets=["organs"], out_of_context=False)[i].samples for i in (0, 2))
    assert Counter(s.task for s in full) == {"segment": 2, "recognize": 1, "report": 1, "classify": 3, "describe": 2}
    assert Counter(s.task for s in healthy) == {"segment": 2, "recognize": 1, "report": 1}
    seen = {s.id.partition("#")[2]: s for s in full}
    assert seen["recognize"].labels == ("Liver tumor",) and seen["recognize"].regions == (1,)
    assert seen["segment/liver"].question == "Please segment the liver in the CT image."
    for sample in full:
        assert sample.answer.count(SEG) == len(sample.regions)
        assert (sample.box is not None) == (sample.task in ("classify", "describe"))
    x0, y0, x1, y1 = seen["classify/0"].box
    assert (x1 - x0, y1 - y0) == (11, 11)
    other = seen["classify/elsewhere"]
    assert other.kind == BACKGROUND_BOX and other.labels == (other.answer,) == ("something else in abdomen CT",)
    assert [s.kind for s in full if s.task == "classify"] == ["", "", BACKGROUND_BOX]
    assert seen["classify/0"].labels == (seen["classify/0"].answer,)
    assert next(s for s in healthy if s.task == "recognize").labels == ("No findings",)


def test_expert_questions(toy_cases):
    cases = toy_cases(datasets=["quiz"], tasks=["ask"])
    asked = [s for case in cases for s in case.samples]
    assert [s.id for s in asked] == [f"{case.record.key}#ask/{n}" for case in cases for n in range(2)]
    assert [s.kind for s in asked] == ["closed", "open"] * 2
    assert asked[1].question == "What is shown in view 0?" and asked[1].answer == "a polyp"


def test_limit_depends_on_key_and_seed(toy_root):
    records = suite_records(Suite("toy"), toy_root, "train")
    few = draw_records(records, 3, 0)
    assert Counter(r.dataset for r in few) == {"organs": 3, "quiz": 2}
    assert [r.key for r in few] == sorted(r.key for r in few)
    assert draw_records(records[::-1], 3, 0) == few
    organs = [r for r in records if r.dataset == "organs"]
    assert draw_records(organs, 3, 0) == [r for r in few if r.dataset == "organs"]
    assert len({tuple(r.key for r in draw_records(organs, 3, seed)) for seed in range(6)}) > 1
    assert draw_records(records, 0, 0) == sorted(records, key=lambda r: r.key)


def test_perturbed_images(toy_cases):
    cases = toy_cases(
        datasets=["organs"], out_of_context=False, perturbations=PerturbationOptions(["flip", "rotation"], limit=1)
    )
    plain = [case for case in cases if case.perturbation is None]
    changed = [case for case in cases if case.perturbation is not None]
    assert len(plain) == 3 and len({case.record.key for case in changed}) == 1
    assert [case.perturbation for case in changed] == [("flip", 1), *(("rotation", n) for n in range(1, 6))]
    assert {s.task for case in changed for s in case.samples} == {"segment", "recognize"}
    assert all(s.id.endswith("@rotation5") for s in changed[-1].samples)
    for case in changed:
        source = next(c for c in plain if c.record == case.record)
        assert case.image_index == source.image_index
        masks, moved = source.masks((20, 30)), case.masks((20, 30))
        assert all(np.array_equal(moved[j], perturb_mask(masks[j], *case.perturbation)) for j in masks)
    assert np.array_equal(changed[0].pixels(), perturb_image(changed[0].record.load_image(), "flip", 1, 0))


def test_noise_depends_on_the_image(toy_cases):
    cases = [
        c
        for c in toy_cases(datasets=["organs"], perturbations=PerturbationOptions(["noise"]))
        if c.perturbation == ("noise", 1)
    ]
    noises = [case.pixels().astype(int) - case.record.load_image() for case in cases]
    assert np.array_equal(cases[0].pixels(), cases[0].pixels())
    assert not np.array_equal(noises[0], noises[1])


def test_paraphrases(toy_cases):
    words = {"segment": ["Show me the {target} in this {image}.", "{target}?"], "recognize": ["Is it normal?"]}
    samples = toy_cases(datasets=["organs"], tasks=["segment", "recognize"], paraphrases=words)[0].samples
    liver = [s for s in samples if s.target == "liver"]
    assert [s.paraphrase for s in liver] == [0, 1, 2]
    assert [s.id for s in liver] == [f"organs/test_0#segment/liver{end}" for end in ("", "~1", "~2")]
    assert [s.question for s in liver[1:]] == ["Show me the liver in this CT image.", "liver?"]
    assert {(s.answer, s.regions) for s in liver} == {("It is [SEG].", (0,))}
    assert sum(s.kind == "out_of_context" for s in samples) == 1
    boxes = toy_cases(datasets=["organs"], tasks=["classify"], paraphrases={"classify": ["What is this?"]})[0].samples
    assert [s.paraphrase for s in boxes] == [0, 1, 0, 1, 0] and boxes[-1].kind == BACKGROUND_BOX
    assert [s.question for s in samples if s.task == "recognize"][1:] == ["Is it normal?"]


def test_volumes(toy_cases):
    cases = toy_cases(datasets=["organs"], tasks=["segment", "recognize"], volumes={"organs": r"^(test)_\d+$"})
    assert {s.volume for case in cases for s in case.samples} == {"test"}
    assert {s.volume for case in toy_cases() for s in case.samples} == {None}


def test_exported_samples(toy_cases, toy_root, tmp_path):
    cases = toy_cases(perturbations=PerturbationOptions(["noise"], limit=1))
    path = tmp_path / "new" / "samples.jsonl"
    assert write_samples(cases, toy_root, path) == sum(len(case.samples) for case in cases)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["sample"] for line in lines] == [s.id for case in cases for s in case.samples]
    first = lines[0]
    assert first["image"] == "organs/images/test_0.png" and (toy_root / first["image"]).is_file()
    assert first["target"] == "liver" and "box" not in first and "perturbation" not in first
    assert any(line.get("perturbation") == ["noise", 5] for line in lines)
    # references are not exported
    assert all(not {"answer", "labels", "regions"} & line.keys() for line in lines)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_samples(cases, toy_root, tmp_path / "file" / "samples.jsonl")


def test_missing_data_sets(toy_root, one_line):
    with pytest.raises(DataError, match="lungs") as caught:
        suite_records(Suite("toy", datasets=["organs", "lungs"]), toy_root)
    one_line(caught.value)
    there = suite_records(Suite("toy", datasets=["organs", "lungs"], optional=True), toy_root)
    assert {r.dataset for r in there} == {"organs"}
    with pytest.raises(DataError, match="none of its data sets"):
        suite_records(Suite("toy", datasets=["lungs"], optional=True), toy_root)
    with pytest.raises(DataError, match="no image in the val split"):
        suite_records(Suite("toy", datasets=["organs"], split="val"), toy_root)


def test_named_data_sets_of_the_catalogue(toy_root, monkeypatch):
    def item(name, shipped="", collection=False):
        return SimpleNamespace(name=name, shipped=shipped, collection=collection)

    known = [item("organs"), item("big_quiz", "quiz"), item("lungs"), item("all", collection=True)]
    monkeypatch.setattr(record_selection, "load_published", lambda: SimpleNamespace(datasets=known))

    def chosen(**values):
        suite = Suite("toy", catalogue=True, **values)
        records = suite_records(suite, toy_root)
        return {r.dataset for r in records}, missing_datasets(suite, toy_root, records)

    assert chosen() == ({"organs", "quiz"}, [("lungs", "not found")])
    assert chosen(datasets=["organs"]) == ({"organs"}, [])
    lost = [("big_quiz", "not found"), ("lungs", "not found"), ("spleens", "not a data set of the paper")]
    assert chosen(datasets=["spleens", "quiz", "lungs", "big_quiz"]) == ({"quiz"}, lost)
    with pytest.raises(DataError, match="none of its data sets"):
        chosen(datasets=["lungs"])


def test_data_sets_without_an_image_in_the_split(toy_root, tmp_path):
    root = shutil.copytree(toy_root, tmp_path / "toy")
    (root / "quiz" / "test.json").write_text("[]")
    names = ["organs", "quiz", "lungs"]
    optional = Suite("toy", datasets=names, optional=True)
    missing = missing_datasets(optional, root, suite_records(optional, root))
    assert missing == [("lungs", "not found"), ("quiz", "no image in the test split")]
    with pytest.raises(DataError, match="no image in the test split of quiz"):
        suite_records(Suite("toy", datasets=names[:2]), root)
    everything = suite_records(Suite("toy"), root)
    assert {r.dataset for r in everything} == {"organs"} and missing_datasets(Suite("toy"), root, everything) == []
    # baselines use the available training images
    assert suite_records(Suite("toy", datasets=names[:2]), root, "train")


def test_partition_opens_its_own_images_only(toy_root, monkeypatch):
    suite = Suite("toy", perturbations=PerturbationOptions(["noise"], limit=2))
    records = suite_records(suite, toy_root)
    every = list(make_cases(suite, records))
    opened, load = [], Record.load_image

    def spy(record):
        opened.append(record.key)
        return load(record)

    monkeypatch.setattr(Record, "load_image", spy)
    parts = [list(make_cases(suite, records, partition=Partition(rank, 2))) for rank in range(2)]
    assert all(key in {case.record.key for case in parts[0]} for key in opened[: len(opened) // 2])
    assert len(opened) == len(set(opened))
    assert {case.record.key for case in parts[0]} == {"organs/test_0", "organs/test_2", "quiz/test_1.test"}
    # the index counts all images, not those of the partition
    together = {(case.record.key, case.perturbation): case for case in [*parts[0], *parts[1]]}
    assert [together[case.record.key, case.perturbation] for case in every] == every and len(together) == len(every)


@pytest.mark.parametrize("name", ["images/test_0.png", "masks/test_0_tumor.png"])
def test_unreadable_image_keeps_all_samples(toy_root, tmp_path, name):
    root = shutil.copytree(toy_root, tmp_path / "toy")
    (root / "organs" / name).write_bytes(b"nothing")
    suite = Suite("toy", datasets=["organs"])
    records, unreadable = suite_records(suite, root), {}
    first, second, third = make_cases(suite, records, unreadable=unreadable)
    # the same samples as for a readable image, all of which need the ground truth
    (whole, *_) = make_cases(suite, suite_records(suite, toy_root))
    assert [s.id for s in first.samples] == [s.id for s in whole.samples]
    assert [(s.labels, s.target) for s in first.samples] == [(s.labels, s.target) for s in whole.samples]
    assert all(s.regions for s in first.samples)
    assert list(unreadable) == ["organs/test_0"] and [first.image_index, second.image_index, third.image_index] == [
        0,
        1,
        2,
    ]
    with pytest.raises(DataError):
        list(make_cases(suite, records))
    assert len(list(make_cases(Suite("toy", tasks=["report"]), records, unreadable=unreadable))) == 3


def test_perturbed_and_embedded_images_are_exported(toy_cases, toy_root, tmp_path):
    changed = toy_cases(datasets=["organs"], tasks=["segment"], perturbations=PerturbationOptions(["noise"], limit=1))[
        :3
    ]
    packed = replace(changed[0].record, key="organs/a/b?", image=changed[0].record.image.read_bytes(), slice_index=None)
    broken = replace(packed, key="organs/" + "long" * 99, image=b"nothing")
    cases = [*changed, *(Case(record, changed[0].samples) for record in (packed, broken))]
    unreadable: dict[str, str] = {}
    write_samples(cases, toy_root, tmp_path / "samples.jsonl", unreadable=unreadable)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    samples = [(case, sample) for case in cases for sample in case.samples]
    for line, (case, _) in zip(lines, samples, strict=True):
        if case.record is broken:
            assert "image" not in line
        elif case.perturbation or case.record is packed:
            assert Path(line["image"]).is_relative_to(tmp_path / "samples" / "organs")
            assert np.array_equal(np.asarray(Image.open(line["image"])), case.pixels())
        else:
            assert line["image"] == "organs/images/test_0.png"
    assert list(unreadable) == [broken.key]
    assert len(list((tmp_path / "samples").rglob("*"))) == 4
    with pytest.raises(DataError):
        write_samples(cases, toy_root, tmp_path / "samples.jsonl")


def test_slices_of_volume_files(tmp_path):
    folder = tmp_path / "livers"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for name in ("test_a", "test_b"):
        values = np.zeros((8, 9, 3), dtype=np.int16)
        nib.save(nib.Nifti1Image(values, np.eye(4)), folder / "images" / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image((values + 1).astype(np.uint8), np.eye(4)), folder / "labels" / f"{name}.nii.gz")
    (folder / "dataset.toml").write_text(
        'name = "livers"\nlicence = "CC0"\nadapter = "volumes"\nmodality = "CT"\nsite = "abdomen"\n'
        "split = { pattern = '^(test)' }\n"
        '[[targets]]\nname = "liver"\nmasks = ["labels/{stem}.nii.gz"]\n'
    )
    suite = Suite("toy", tasks=["segment"], out_of_context=False)
    records = load_records(tmp_path)

    def volumes(suite):
        return [sample.volume for case in make_cases(suite, records) for sample in case.samples]

    assert volumes(suite) == ["test_a"] * 3 + ["test_b"] * 3
    # of a draw the volume is not whole; what the suite says of names goes first
    assert volumes(replace(suite, limit=9)) == [None] * 6
    assert volumes(replace(suite, volumes={"livers": "^test_(.)"})) == ["a"] * 3 + ["b"] * 3
