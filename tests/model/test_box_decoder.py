"""The box decoder: where it starts from, what it is asked, and that a model keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unibiomed.errors import ModelError
from unibiomed.model.box_decoder import BoxDecoder
from unibiomed.model.configuration import nano_config
from unibiomed.model.lite_medsam import LiteMedSam
from unibiomed.model.modeling import UniBiomedModel
from unibiomed.model.weights import _load_own

SIZES = {"image_size": 64, "width": 32, "hidden_size": 64, "layers": 1}


def small(**more: bool) -> UniBiomedModel:
    torch.manual_seed(0)
    return UniBiomedModel(nano_config(100, 1, 2, 3, **SIZES, **more)).eval()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def teacher() -> LiteMedSam:
    torch.manual_seed(1)
    model = LiteMedSam().eval()
    torch.nn.init.normal_(model.image_encoder.neck[-1].weight)
    return model


@pytest.fixture(scope="module", params=[True, False], ids=["fine", "coarse"])
def boxed(request: pytest.FixtureRequest, teacher: LiteMedSam) -> UniBiomedModel:
    model = small(fine_masks=request.param)
    model.add_box_decoder(teacher, seed=3)
    return model.eval()


def look(model: UniBiomedModel, images: int = 1) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(2)
    return model.encode_image(torch.randn(images, 3, 64, 64), text=False).maps


def test_it_starts_from_lite_medsam(boxed: UniBiomedModel, teacher: LiteMedSam) -> None:
    decoder = boxed.box_decoder
    for part in ("prompt_encoder", "mask_decoder"):
        wanted = getattr(teacher, part).state_dict()
        for name, value in getattr(decoder, part).state_dict().items():
            assert torch.equal(value, wanted[name]), name
    assert torch.equal(decoder.neck.last_norm.weight, teacher.image_encoder.neck[-1].weight)
    assert boxed.config.box_decoder


def test_adding_it_changes_no_other_weight_or_random_number(teacher: LiteMedSam) -> None:
    one, other = small(), small()
    torch.manual_seed(5)
    other.add_box_decoder(teacher, seed=3)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))
    own, more = one.state_dict(), other.state_dict()
    assert own.keys() == {name for name in more if not name.startswith("box_decoder.")}
    assert all(torch.equal(value, more[name]) for name, value in own.items())
    again = small()
    again.add_box_decoder(teacher, seed=3)
    assert all(torch.equal(value, more[name]) for name, value in again.state_dict().items())


def test_features_have_the_teachers_size_and_scale(boxed: UniBiomedModel) -> None:
    with torch.inference_mode():
        assert boxed.box_decoder.neck(look(boxed, 2)).shape == (2, 256, 64, 64)


def test_boxes_are_those_of_the_square(boxed: UniBiomedModel, teacher: LiteMedSam) -> None:
    """LiteMedSAM's square has 256 pixels, the model's 64."""
    boxes = torch.tensor([[4.0, 8.0, 30.0, 40.0], [0.0, 0.0, 63.0, 63.0]])
    with torch.inference_mode():
        maps = look(boxed)
        found = boxed.decode_boxes(maps, boxes)
        logits, quality = teacher.outline(boxed.box_decoder.neck(maps), 4 * boxes[None])
    assert found.logits is not None and found.predicted_iou is not None and found.presence_logits is None
    assert found.logits.shape == (2, 1, 256, 256) and found.predicted_iou.shape == (2, 1)
    torch.testing.assert_close(found.logits[:, 0], logits[0])
    torch.testing.assert_close(found.predicted_iou[:, 0], quality[0])
    assert not torch.allclose(logits[0, 0], logits[0, 1], atol=1e-3)


def test_boxes_of_several_images(boxed: UniBiomedModel) -> None:
    boxes, image = torch.tensor([[4.0, 8, 30, 40], [1, 1, 9, 9], [20, 20, 60, 50]]), torch.tensor([1, 0, 1])
    with torch.inference_mode():
        maps = look(boxed, 2)
        together = boxed.decode_boxes(maps, boxes, image).best()
        for i, own in enumerate(image.tolist()):
            alone = boxed.decode_boxes(tuple(m[own : own + 1] for m in maps), boxes[i : i + 1]).best()
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-4, rtol=1e-4)


def test_without_one_sam2_is_asked() -> None:
    model, boxes = small(), torch.tensor([[4.0, 8, 30, 40]])
    with torch.inference_mode():
        maps = look(model)
        assert torch.equal(model.decode_boxes(maps, boxes).best(), model.decode_masks(maps, boxes=boxes).best())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(boxed: UniBiomedModel, dtype: torch.dtype) -> None:
    boxes = torch.tensor([[4.0, 8, 30, 40]])
    with torch.inference_mode():
        maps = look(boxed)
        exact = boxed.decode_boxes(maps, boxes).best()
        half = BoxDecoder(32, boxed.box_decoder.neck.fine.in_channels if boxed.box_decoder.neck.fine else 0)
        half.load_state_dict(boxed.box_decoder.state_dict())
        half = half.to(dtype)
        features = half.neck(tuple(m.to(dtype) for m in maps))
        logits, _ = half.decode(features, boxes, 64)
    assert logits.dtype == dtype and bool(logits.isfinite().all())
    together = torch.stack([logits.float().flatten(), exact.flatten()])
    assert float(together.corrcoef()[0, 1]) > 0.9


def test_a_model_folder_keeps_it(boxed: UniBiomedModel, tmp_path: Path) -> None:
    boxed.save_pretrained(tmp_path / "model")
    again = _load_own(tmp_path / "model", torch.float32)
    assert again.config.box_decoder
    state = again.state_dict()
    assert state.keys() == boxed.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in boxed.state_dict().items())


def test_a_folder_that_lacks_its_weights_is_refused(tmp_path: Path) -> None:
    model = small()
    model.config.box_decoder = True
    model.save_pretrained(tmp_path / "model")
    with pytest.raises(ModelError):
        _load_own(tmp_path / "model", torch.float32)
