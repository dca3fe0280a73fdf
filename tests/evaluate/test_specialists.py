from __future__ import annotations

import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from unibiomed.errors import InputError, ModelError, OutputError
from unibiomed.evaluate.predict import predict_case
from unibiomed.evaluate.predictors import PredictorContext, make_predictor, specialists
from unibiomed.evaluate.predictors.specialists import (
    Specialist,
    SpecialistsPredictor,
    UNet,
    read_specialist,
    save_specialist,
    specialist_path,
)
from unibiomed.model.mask_threshold import mask_threshold
from unibiomed.train.packing import normalise_batch
from unibiomed.train.views import Viewer

SIZE = (20, 30)
SIDE = 64
LIVER = Specialist("organs", "liver", SIDE, 100)
TUMOR = Specialist("organs", "liver tumor", 32, 100)


@pytest.fixture(scope="module")
def net():
    """U-Net with random weights in the range of half precision."""
    torch.manual_seed(0)
    net = UNet().eval()
    # about half of the logits are positive
    net.out[0].bias.data.zero_()
    return net.half().float()


@pytest.fixture
def folder(net, tmp_path):
    save_specialist(net, LIVER, tmp_path / "nets")
    save_specialist(net, TUMOR, tmp_path / "nets")
    return tmp_path / "nets"


def test_unet_output_has_the_size_of_the_input(net):
    with torch.inference_mode():
        assert net(torch.zeros(2, 3, 64, 96)).shape == (2, 64, 96)
        assert net(torch.zeros(1, 3, 33, 50)).shape == (1, 33, 50)


def test_saved_files(net, folder):
    path = specialist_path(folder, "organs", "liver tumor")
    assert path.name == "organs__liver_tumor.safetensors"
    assert json.loads(path.with_suffix(".json").read_text()) == {
        "dataset": "organs",
        "target": "liver tumor",
        "size": 32,
        "samples": 100,
    }
    kept, whole = load_file(path), net.state_dict()
    assert kept.keys() == whole.keys()
    assert all(kept[name].dtype == torch.float16 for name in kept if whole[name].is_floating_point())
    assert all(torch.equal(kept[name].to(whole[name].dtype), whole[name]) for name in whole)
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".json", ".safetensors", ".safetensors"]


def test_round_trip(net, folder):
    kept, about = read_specialist(specialist_path(folder, "organs", "liver tumor"))
    assert about == TUMOR
    whole = net.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in kept.state_dict().items())
    assert all(value.requires_grad for value in kept.parameters())
    specialist_path(folder, "organs", "liver tumor").with_suffix(".json").unlink()
    assert read_specialist(specialist_path(folder, "organs", "liver tumor")) is None


def test_values_beyond_half_precision_are_kept(tmp_path):
    torch.manual_seed(0)
    net = UNet().eval()
    name = next(name for name in net.state_dict() if name.endswith("running_var"))
    net.state_dict()[name][:] = 1e6
    kept = load_file(save_specialist(net, LIVER, tmp_path))
    assert kept[name].dtype == torch.float32 and (kept[name] == 1e6).all()


def test_masks_match_the_threshold_of_nano(net, folder, segment_case, toy_training):
    predictor = make_predictor(f"specialists:{folder}", PredictorContext(toy_training, "cpu"))
    assert predictor.name == "nets" and predictor.tasks == {"segment"} and predictor.note
    found = predict_case(predictor, segment_case, segment_case.pixels())
    assert [p.error for p in found] == [None] * 3
    for about, prediction in zip((LIVER, TUMOR), found, strict=False):
        view = Viewer(about.size).view(segment_case.record, random.Random(0), 0.0)
        with torch.inference_mode():
            logits = net(normalise_batch([torch.from_numpy(view.image).permute(2, 0, 1).float() / 255]))
        cut = float(mask_threshold(logits, "dice")[0])
        logits = F.interpolate(logits[None], SIZE, mode="bilinear", align_corners=False)[0, 0].numpy()
        mask = prediction.decode(SIZE)[0]
        # rounding errors decide for logits at the threshold
        decided = np.abs(logits - cut) > 1e-5
        assert decided.mean() > 0.9 and np.array_equal(mask[decided], (logits > cut)[decided] & (logits.max() > 0))
        assert mask.any()
        assert prediction.scores[0] == pytest.approx(1 / (1 + np.exp(-logits.max())), abs=1e-5)
        assert prediction.labels == (about.target,)


def test_targets_without_a_unet_are_absent(folder, segment_case, toy_cases):
    predictor = SpecialistsPredictor(folder, "cpu")
    other = predict_case(predictor, segment_case, segment_case.pixels())[2]
    assert other.scores == (0.0,) and not other.decode(SIZE)[0].any()
    # U-Nets are specific to a data set
    other_record = replace(segment_case.record, dataset="quiz", key="quiz/x")
    case = replace(segment_case, record=other_record)
    assert [p.scores for p in predict_case(predictor, case, segment_case.pixels())] == [(0.0,)] * 3


def test_unets_are_loaded_on_demand(folder, segment_case, monkeypatch):
    loaded = []
    original = SpecialistsPredictor._load

    def load(self, path):
        loaded.append(path.stem)
        return original(self, path)

    monkeypatch.setattr(SpecialistsPredictor, "_load", load)
    pixels = segment_case.pixels()
    predictor = SpecialistsPredictor(folder, "cpu")
    assert loaded == []
    for _ in range(2):
        predictor.predict(segment_case, pixels)
    assert loaded == ["organs__liver", "organs__liver_tumor"]
    loaded.clear()
    monkeypatch.setattr(specialists, "CACHE_SIZE", 1)
    narrow = SpecialistsPredictor(folder, "cpu")
    for _ in range(2):
        narrow.predict(segment_case, pixels)
    assert loaded == ["organs__liver", "organs__liver_tumor"] * 2


def test_broken_weights_fail_on_use(folder, segment_case):
    path = specialist_path(folder, "organs", "liver")
    # copies, because tensors are mapped from the file, which is overwritten
    state = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for change in ("cut", "misfit", "lacking"):
        if change == "cut":
            path.write_bytes(path.read_bytes()[:5000])
        elif change == "misfit":
            save_file(state | {"out.0.bias": torch.zeros(7)}, path)
        else:
            save_file({k: v for k, v in state.items() if k != "out.0.bias"}, path)
        found = predict_case(SpecialistsPredictor(folder, "cpu"), segment_case, segment_case.pixels())
        assert all(p.error and "organs__liver.safetensors" in p.error for p in found)


@pytest.mark.parametrize(
    "values",
    [
        [],
        {},
        {"dataset": "organs", "target": "liver", "size": 64},
        {"dataset": "organs", "target": 3, "size": 64, "samples": 1},
        {"dataset": "organs", "target": "liver", "size": "64", "samples": 1},
        {"dataset": "organs", "target": "liver", "size": True, "samples": 1},
        {"dataset": "organs", "target": "liver", "size": 10**6, "samples": 1},
        {"dataset": "organs", "target": "liver", "size": 0, "samples": 1},
    ],
)
def test_broken_descriptions(tmp_path, one_line, values):
    (tmp_path / "organs__liver.json").write_text(json.dumps(values))
    (tmp_path / "organs__liver.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"organs__liver.json") as caught:
        SpecialistsPredictor(tmp_path, "cpu")
    one_line(caught.value)


def test_incomplete_folders(tmp_path, one_line):
    for nothing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="holds no U-Nets"):
            SpecialistsPredictor(nothing, "cpu")
    for name in ("liver", "copy"):
        (tmp_path / f"organs__{name}.json").write_text(json.dumps(asdict(LIVER)))
    (tmp_path / "organs__liver.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds organs__copy.json but not organs__copy.safetensors"):
        SpecialistsPredictor(tmp_path, "cpu")
    (tmp_path / "organs__copy.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="have the same target") as caught:
        SpecialistsPredictor(tmp_path, "cpu")
    one_line(caught.value)


def test_read_only_folder(net, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_specialist(net, LIVER, tmp_path / "file")


def test_low_probabilities_give_an_empty_mask(net, tmp_path, segment_case, toy_training, monkeypatch):
    save_specialist(net, LIVER, tmp_path)
    predictor = make_predictor(f"specialists:{tmp_path}", PredictorContext(toy_training, "cpu"))
    for level, found in ((-0.5, False), (0.5, True)):
        monkeypatch.setattr(predictor, "_net", lambda path, level=level: lambda x: torch.full((1, *x.shape[2:]), level))
        first = predict_case(predictor, segment_case, segment_case.pixels())[0]
        assert bool(first.decode(SIZE)[0].any()) == found
        assert (first.scores[0] > 0.5) == found
