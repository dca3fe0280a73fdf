"""Images and questions to tensors, against straightforward readings of the published preprocessing."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from transformers import PreTrainedTokenizerFast

from unibiomed.errors import ModelError
from unibiomed.model.processing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    SETTINGS_FILE,
    ProcessorSettings,
    UniBiomedProcessor,
    choose_grid,
)
from unibiomed.train.tokenizer import train_tokenizer

TOKENIZER = train_tokenizer(["Please segment the liver in the CT image.", "It is [SEG]."] * 2, 320)
PUBLISHED = UniBiomedProcessor(TOKENIZER, ProcessorSettings())
SMALL = UniBiomedProcessor(TOKENIZER, ProcessorSettings(64, 56, 12, 4))
# every kind of text a user may type, and what steers the model in any order
WILD = st.text(max_size=40) | st.lists(
    st.sampled_from(["<image>", "<img>", "{question}", "{", "}", "\0", "\n", "<|end|>", " ", "liver", "é", "1.5"])
).map("".join)


def picture(width: int, height: int) -> Image.Image:
    """A smooth picture, so that resizing leaves something to compare."""
    rng = np.random.default_rng(width * 10007 + height)
    return Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((width, height))


def normalised(image: Image.Image, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(3, height, width), pixel by pixel from the definition."""
    return ((np.asarray(image, np.float64) / 255 - mean) / std).transpose(2, 0, 1)


MEAN, STD = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)


# ---------------------------------------------------------------- the grid of tiles


def plain_grid(width: int, height: int, max_tiles: int, tile: int) -> tuple[int, int]:
    """Reference 2.1 read aloud: in order of i·j, the closest aspect ratio; a tie goes on if W·H > 0.5·tile²·i·j."""
    order = [(i, j) for n in range(1, max_tiles + 1) for i in range(1, n + 1) for j in range(1, n + 1) if i * j == n]
    ratio = width / height
    smallest = min(abs(ratio - i / j) for i, j in order)
    chosen = None
    for i, j in order:
        if abs(ratio - i / j) == smallest and (chosen is None or width * height > 0.5 * tile**2 * i * j):
            chosen = (i, j)
    assert chosen is not None
    return chosen


SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.sampled_from([1, 2, 4, 6, 12]), st.sampled_from([56, 448]))
@example(1024, 1024, 12, 448)
@example(634, 634, 12, 448)
@example(896, 448, 12, 448)
def test_grid_equals_a_direct_implementation(width: int, height: int, max_tiles: int, tile: int) -> None:
    columns, rows = choose_grid(width, height, max_tiles, tile)
    assert (columns, rows) == plain_grid(width, height, max_tiles, tile)
    assert 1 <= columns * rows <= max_tiles


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((410, 410), (1, 1)),
        ((512, 512), (1, 1)),
        # 2 x 2 needs more than 0.5 · 448² · 4 = 401,408 pixels, 3 x 3 more than 903,168
        ((633, 633), (1, 1)),
        ((634, 634), (2, 2)),
        ((950, 950), (2, 2)),
        ((951, 951), (3, 3)),
        ((1024, 1024), (3, 3)),
        ((800, 400), (2, 1)),
        ((400, 800), (1, 2)),
        ((1600, 800), (4, 2)),
        ((1000, 20), (12, 1)),
        ((20, 1000), (1, 12)),
    ],
)
def test_grid_of_known_sizes(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert choose_grid(*size, 12, 448) == grid


def test_grids_of_one_size_never_tie() -> None:
    # the published order within one number of tiles is that of a Python set; here it may not matter
    grids = [(i, j) for i in range(1, 13) for j in range(1, 12 // i + 1)]
    ratios = sorted({Fraction(i, j) for i, j in grids})
    for aspect in [*ratios, *((a + b) / 2 for a, b in pairwise(ratios))]:
        distances = [abs(aspect - Fraction(i, j)) for i, j in grids]
        sizes = [i * j for (i, j), d in zip(grids, distances, strict=True) if d == min(distances)]
        assert len(sizes) == len(set(sizes))


# ---------------------------------------------------------------- pixels


@pytest.mark.parametrize(("size", "tiles"), [((410, 410), 1), ((512, 512), 1), ((1024, 1024), 10), ((896, 448), 3)])
def test_tokens_of_an_image(size: tuple[int, int], tiles: int) -> None:
    inputs = PUBLISHED.image(picture(*size))
    assert inputs.tile_pixels is not None
    assert inputs.tile_pixels.shape == (tiles, 3, 448, 448)
    assert inputs.tokens == 256 * tiles
    assert inputs.size == size[::-1]
    assert inputs.grounding_pixels.shape == (1, 3, 1024, 1024)


def test_tiles_go_row_by_row_and_the_whole_image_comes_last() -> None:
    image = picture(170, 110)
    assert choose_grid(170, 110, 12, 56) == (3, 2)
    tiles = SMALL.tile_pixels(image)
    assert len(tiles) == 7
    whole = image.resize((168, 112), Image.Resampling.BICUBIC)
    for number in range(6):
        row, column = divmod(number, 3)
        part = np.asarray(whole)[56 * row : 56 * (row + 1), 56 * column : 56 * (column + 1)]
        np.testing.assert_allclose(tiles[number], normalised(Image.fromarray(part), MEAN, STD), atol=1e-5)
    thumbnail = image.resize((56, 56), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(tiles[6], normalised(thumbnail, MEAN, STD), atol=1e-5)


def test_one_tile_has_no_thumbnail() -> None:
    image = picture(50, 50)
    tiles = SMALL.tile_pixels(image)
    assert len(tiles) == 1
    expected = normalised(image.resize((56, 56), Image.Resampling.BICUBIC), MEAN, STD)
    np.testing.assert_allclose(tiles[0], expected, atol=1e-5)


def test_sam2_pixels_use_constants_in_bfloat16_as_published() -> None:
    image = picture(90, 60)
    square = image.resize((64, 64), Image.Resampling.BICUBIC)
    # bfloat16 keeps 8 significant bits: steps of 1/512 in [0.25, 0.5), of 1/1024 in [0.125, 0.25)
    mean, std = np.round(MEAN * 512) / 512, np.round(STD * 1024) / 1024
    published = SMALL.grounding_pixels(image)
    np.testing.assert_allclose(published, normalised(square, mean, std), atol=1e-5)
    exact = UniBiomedProcessor(TOKENIZER, ProcessorSettings(64, 56, 12, 4, False)).grounding_pixels(image)
    np.testing.assert_allclose(exact, normalised(square, MEAN, STD), atol=1e-5)
    assert 1e-3 < float((published - exact).abs().max()) < 1e-2
    # the tiles are made with the exact constants either way
    assert torch.equal(SMALL.tile_pixels(image)[-1], SMALL.image(image).tile_pixels[-1])


def test_an_image_of_the_right_size_is_not_resized() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    exact = UniBiomedProcessor(TOKENIZER, ProcessorSettings(64, 0, 1, 4, False))
    np.testing.assert_allclose(exact.grounding_pixels(noise), normalised(noise, MEAN, STD), atol=1e-5)


def test_a_model_without_a_vision_tower_gets_no_tiles() -> None:
    inputs = UniBiomedProcessor(TOKENIZER, ProcessorSettings(64, 0, 1, 4, False)).image(picture(300, 100))
    assert inputs.tile_pixels is None
    assert inputs.tokens == 4


def test_arrays_and_grey_images() -> None:
    image = picture(70, 50)
    for other in (np.asarray(image), image.convert("RGBA")):
        assert torch.equal(SMALL.image(other).grounding_pixels, SMALL.image(image).grounding_pixels)
    grey = image.convert("L")
    assert torch.equal(
        SMALL.image(grey).grounding_pixels, SMALL.image(np.dstack([np.asarray(grey)] * 3)).grounding_pixels
    )


@given(st.integers(1, 400), st.integers(1, 400))
def test_any_size_can_be_prepared(width: int, height: int) -> None:
    inputs = SMALL.image(Image.new("RGB", (width, height), (10, 200, 30)))
    assert inputs.tile_pixels is not None
    assert inputs.tokens == 4 * len(inputs.tile_pixels)
    assert inputs.size == (height, width)
    # a picture of one colour stays one, in every tile
    assert float((inputs.tile_pixels - inputs.tile_pixels[:1, :, :1, :1]).abs().max()) == 0


# ---------------------------------------------------------------- words


def test_prompt_as_published() -> None:
    assert SMALL.prompt("Is there a mass?", 0) == "<|user|>\nIs there a mass?<|end|>\n<|assistant|>\n"
    image = "<img>" + "<IMG_CONTEXT>" * 3 + "</img>"
    assert SMALL.prompt("Where?", 3) == f"<|user|>\n{image}Where?<|end|>\n<|assistant|>\n"
    assert SMALL.prompt("<image>\nWhere?", 3) == f"<|user|>\n{image}\nWhere?<|end|>\n<|assistant|>\n"
    assert SMALL.prompt("In <image> or <image>?", 3) == f"<|user|>\nIn {image} or <image>?<|end|>\n<|assistant|>\n"


@given(WILD, st.integers(0, 20))
@example("a\0b", 2)
@example("{question}<image>{question}", 2)
def test_prompt_ids_are_those_of_the_prompt(question: str, tokens: int) -> None:
    ids = SMALL.prompt_ids(question, tokens)
    assert ids == SMALL.encode(SMALL.prompt(question, tokens))
    assert SMALL.decode(ids) == SMALL.prompt(question, tokens)


@given(WILD)
def test_encode_and_decode_are_inverse(text: str) -> None:
    assert SMALL.decode(SMALL.encode(text)) == text


# ---------------------------------------------------------------- masks


def test_mask_logits_of_a_ramp() -> None:
    # bilinear steps keep a ramp a ramp, away from the border
    ramp = torch.arange(16.0).expand(16, 16)[None]
    out = SMALL.mask_logits(ramp, (32, 128))
    assert out.shape == (1, 32, 128)
    expected = (torch.arange(128) + 0.5) / 8 - 0.5
    torch.testing.assert_close(out[0, :, 16:-16], expected[16:-16].expand(32, -1), atol=0.02, rtol=0)


def test_mask_logits_are_resampled_in_two_steps() -> None:
    logits = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))
    square = torch.nn.functional.interpolate(logits[:, None], (64, 64), mode="bilinear", align_corners=False)
    assert torch.equal(SMALL.mask_logits(logits, (64, 64)), square[:, 0])
    two = SMALL.mask_logits(logits, (37, 91))
    one = torch.nn.functional.interpolate(logits[:, None], (37, 91), mode="bilinear", align_corners=False)[:, 0]
    assert two.shape == one.shape == (2, 37, 91)
    changed = ((two > 0) != (one > 0)).float().mean()
    assert 0.001 < changed < 0.1


def test_mask_logits_are_float32_and_may_be_none() -> None:
    assert SMALL.mask_logits(torch.zeros(1, 16, 16, dtype=torch.bfloat16), (9, 5)).dtype == torch.float32
    with_none = SMALL.mask_logits(torch.ones(1, 16, 16), (9, 5))
    assert torch.equal(with_none, torch.ones(1, 9, 5))


# ---------------------------------------------------------------- files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    SMALL.save_pretrained(tmp_path)
    return tmp_path


def one_line(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        UniBiomedProcessor.from_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 400
    return message


def test_saved_and_read_again(folder: Path) -> None:
    again = UniBiomedProcessor.from_pretrained(folder)
    assert again.settings == SMALL.settings
    assert again.prompt_ids("Where is the liver?", 4) == SMALL.prompt_ids("Where is the liver?", 4)
    assert again.tokenizer.eos_token == "<|im_end|>"
    assert {path.suffix for path in folder.iterdir()} == {".json"}


def test_default_settings(folder: Path) -> None:
    (folder / SETTINGS_FILE).unlink()
    assert UniBiomedProcessor.from_pretrained(folder).settings == ProcessorSettings()
    assert UniBiomedProcessor.from_pretrained(folder, max_tiles=3).settings == ProcessorSettings(max_tiles=3)


def test_the_settings_file_has_precedence(folder: Path) -> None:
    assert UniBiomedProcessor.from_pretrained(folder, max_tiles=3).settings == SMALL.settings


def test_unknown_settings(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(SMALL.settings) | {"grounding_sise": 5}))
    assert "grounding_sise" in one_line(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[1, 2]", "5", "null", "", "\0", '{"tile_size": "56"}', '{"grounding_size": 0}', '{"max_tiles": 2.5}',
        '{"max_tiles": true}', '{"tile_size": -1}', '{"grounding_size": 1000000000}', '{"bfloat16_constants": 1}',
    ],
)  # fmt: skip
def test_broken_settings(folder: Path, text: str) -> None:
    (folder / SETTINGS_FILE).write_text(text)
    one_line(folder)


def test_a_binary_settings_file(folder: Path) -> None:
    (folder / SETTINGS_FILE).write_bytes(b"\xff\xfe\x00")
    one_line(folder)


def test_missing_tokenizer(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").unlink()
    one_line(folder)
    one_line(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"version": "1.0", "added_tokens": []}'])
def test_broken_tokenizer(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    one_line(folder)


def test_a_tokenizer_without_special_tokens(tmp_path: Path) -> None:
    backend = json.loads(TOKENIZER.backend_tokenizer.to_str())
    backend["added_tokens"] = [t for t in backend["added_tokens"] if t["content"] != "[SEG]"]
    backend["model"]["vocab"]["[XXX]"] = backend["model"]["vocab"].pop("[SEG]")
    (tmp_path / "tokenizer.json").write_text(json.dumps(backend))
    PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json")).save_pretrained(tmp_path)
    assert "[SEG]" in one_line(tmp_path)
