"""When a second look is taken, and what it may change: on a model whose mask logits are the image itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unibiomed.findings import mask_box
from unibiomed.interpret import load, second_look
from unibiomed.interpret.batch import interpret_batch
from unibiomed.interpret.second_look import MOST_LOOKS, larger_side, part_width, worth_a_look
from unibiomed.model.modeling import ImageFeatures, MaskPrediction, UniBiomedModel

SIZES = [(128, 128), (100, 320), (320, 100), (97, 101), (480, 333)]


class Mirror:
    """Stands in for the model: its mask logits are the brightness of what it looks at, above or below the middle.

    Attributes
    ----------
    seen : list of int
        The side of each square that was encoded.
    second : callable
        Changes the logits of second looks.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        mirror = self
        self.seen: list[int] = []
        self.second = lambda logits: logits

        def encode_image(self: UniBiomedModel, pixels: torch.Tensor, *_: object, text: bool = True) -> ImageFeatures:
            mirror.seen.append(pixels.shape[-1])
            again = torch.tensor(0.0 if text else 1.0)
            return ImageFeatures([torch.zeros(4, 64)] if text else [], (4 * pixels.mean(1), again))

        def decode_masks(self: UniBiomedModel, maps: tuple[torch.Tensor, ...], prompts: torch.Tensor) -> MaskPrediction:
            shown, again = maps
            n = len(prompts)
            return MaskPrediction(
                logits=(mirror.second(shown) if again else shown)[:, None].expand(n, -1, -1, -1).clone(),
                predicted_iou=torch.full((n, 1), 0.6 if again else 0.8),
                presence_logits=torch.full((n,), 8.0),
            )

        monkeypatch.setattr(UniBiomedModel, "encode_image", encode_image)
        monkeypatch.setattr(UniBiomedModel, "decode_masks", decode_masks)


@pytest.fixture
def mirror(script, monkeypatch) -> Mirror:
    script.says = lambda question: "It is [SEG]."
    # on a square of 64 pixels there is no room for more parts of that width
    monkeypatch.setattr(second_look, "LEAST_PARTS", 5)
    return Mirror(monkeypatch)


def dots(size: tuple[int, int], number: int = 2) -> np.ndarray:
    """A picture of `number` by `number` soft dots that reach its borders: (height, width, 3) uint8."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = np.cos(2 * np.pi * number * (y + 0.5) / size[0]) + np.cos(2 * np.pi * number * (x + 0.5) / size[1])
    return np.repeat((100 + 50 * waves).astype(np.uint8)[:, :, None], 3, axis=2)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_shifted(interpreter, mirror, size) -> None:
    picture = dots(size)
    first = interpreter.interpret(picture, targets="a", second_look=False).findings[0]
    result = interpreter.interpret(picture, targets="a")
    assert mirror.seen == [64, 64, 96]
    assert result.details["second_look"] == {"side": 96, "refined": ["a"]}
    [refined] = result.findings
    assert dice(first.mask, refined.mask) > 0.97
    for axis in (0, 1):
        # one way round and the other: a shift would show on opposite sides
        flipped = interpreter.interpret(np.flip(picture, axis).copy(), targets="a").findings[0].mask
        assert dice(np.flip(flipped, axis), refined.mask) > 0.99
    assert refined.presence == first.presence


def test_both_passes_count_alike(interpreter, mirror) -> None:
    picture = dots((128, 128))
    first = interpreter.interpret(picture, targets="a", second_look=False).findings[0]
    mirror.second = lambda logits: logits + 0.5
    [finding] = interpreter.interpret(picture, targets="a").findings
    assert finding.mask.sum() > first.mask.sum() and not (first.mask & ~finding.mask).any()
    # scores, size and place are those of the refined mask
    assert (first.mask_score, finding.mask_score) == (pytest.approx(0.8), pytest.approx(0.7))
    assert finding.area_fraction == pytest.approx(finding.mask.mean()) and finding.box == mask_box(finding.mask)


@pytest.mark.parametrize("second", [lambda x: x - 90, lambda x: x + 90, lambda x: -9 * x])
def test_another_mask_does_not_replace_the_first(interpreter, mirror, second) -> None:
    picture = dots((128, 128))
    first = interpreter.interpret(picture, targets="a", second_look=False)
    mirror.second = second
    result = interpreter.interpret(picture, targets="a")
    assert "second_look" not in result.details
    assert result.findings[0].mask_score == first.findings[0].mask_score
    assert (result.findings[0].mask == first.findings[0].mask).all()


def test_no_second_look_where_it_is_off_or_shows_nothing_new(interpreter, mirror, monkeypatch) -> None:
    def looks(picture: np.ndarray, *args: object, **kwargs: object) -> int:
        mirror.seen.clear()
        interpreter.interpret(picture, *args, **kwargs)
        return mirror.seen.count(96)

    picture = dots((128, 128))
    assert looks(picture, targets="a") == 1
    assert looks(picture, targets="a", second_look=False) == 0
    # few pixels, wide parts, nothing bright
    assert looks(dots((64, 100)), targets="a") == 0
    assert looks(dots((2, 3), 1), targets="a") == 0
    assert looks(np.full((128, 128, 3), 255, np.uint8), targets="a") == 0
    assert looks(np.zeros((128, 128, 3), np.uint8), targets="a") == 0
    assert looks(picture, "describe", box=(20, 20, 60, 60)) == 0
    interpreter.presence_threshold = 1.0
    assert looks(picture, targets="a") == 0
    interpreter.presence_threshold = 0.5
    for name in ("scores_trained", "shared_vision"):
        with monkeypatch.context() as patch:
            patch.setattr(interpreter.model.config, name, False)
            assert looks(picture, targets="a") == 0


def test_all_targets_share_one_look_and_their_number_is_limited(interpreter, mirror) -> None:
    names = ["a", "b", "c", "d", "e"]
    result = interpreter.interpret(dots((128, 128)), targets=names)
    assert mirror.seen == [64, 96] and len(result.findings) == 5
    assert result.details["second_look"]["refined"] == names[:MOST_LOOKS]
    alone = interpreter.interpret(dots((128, 128)), targets="a").findings[0]
    for finding in result.findings[:MOST_LOOKS]:
        assert (finding.mask == alone.mask).all() and finding.mask_score == alone.mask_score


def test_a_batch_gives_what_each_image_alone_does(interpreter, mirror, tmp_path) -> None:
    paths = []
    for number, size in enumerate(SIZES):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(dots(size)).save(paths[-1])
    for path, item in zip(paths, interpret_batch(interpreter, paths, targets="a"), strict=True):
        alone = interpreter.interpret(path, targets="a")
        assert item.result is not None and item.result.details["second_look"] == alone.details["second_look"]
        assert (item.result.findings[0].mask == alone.findings[0].mask).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30))
def test_widths_do_not_depend_on_the_place(height, width, top, left) -> None:
    mask = np.zeros((80, 80), bool)
    mask[top : top + height, left : left + width] = True
    assert part_width(mask) == pytest.approx(height * width / (height + width))


def test_widths_of_stripes_and_of_nothing() -> None:
    stripes = np.zeros((200, 200), bool)
    stripes[:, ::20] = stripes[:, 1::20] = stripes[:, 2::20] = True
    assert part_width(stripes) == pytest.approx(3, rel=0.05) and not worth_a_look(stripes)
    thicker = stripes | np.roll(stripes, 3, axis=1)
    assert part_width(thicker) == pytest.approx(6, rel=0.05) and worth_a_look(thicker)
    joined = thicker.copy()
    joined[:2] = True
    assert not worth_a_look(joined)
    assert part_width(np.zeros((9, 9), bool)) == 0 and not worth_a_look(np.zeros((9, 9), bool))
    small = np.zeros((200, 200), bool)
    small[50:60, 50:60] = True
    assert not worth_a_look(small) and not worth_a_look(np.ones((200, 200), bool))


@given(st.integers(1, 64))
def test_larger_squares_are_larger_and_can_be_read(number) -> None:
    side = larger_side(32 * number)
    assert side % 32 == 0 and side > 32 * number and side <= max(32 * number * 4 / 3 + 16, 32 * number + 32)


@torch.inference_mode()
def test_the_shipped_model_reads_the_larger_square(monkeypatch) -> None:
    monkeypatch.setattr(second_look, "AGREEMENT", 0.0)
    nano = load(device="cpu")
    picture = dots((512, 600))
    seen = nano.encode(picture)
    [answer] = nano.answer(seen, ["Please segment the cell nucleus in the image."])
    prompt = answer.prompts[:1]
    logits = nano.model.decode_masks(seen.features.maps, prompt).best()
    mask = np.ones((512, 600), bool)
    [look] = second_look.look_again(nano, seen.image, prompt, logits, torch.zeros(1), [mask], [0.5])
    assert larger_side(nano.model.config.image_size) == 480
    assert look.mask.shape == mask.shape and 0 <= look.quality <= 1
    # the stateless way to another side is that of training
    pixels = nano.processor.grounding_pixels(Image.fromarray(picture), 480)[None]
    masks = [nano.model.decode_masks(nano.model.encode_image(pixels, text=False).maps, prompt).logits]
    nano.model.set_image_size(480)
    masks.append(nano.model.decode_masks(nano.model.encode_image(pixels, text=False).maps, prompt).logits)
    assert masks[0].shape[-2:] == (480, 480) and torch.allclose(*masks, atol=1e-3)
