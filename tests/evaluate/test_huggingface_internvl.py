"""A tiny random InternVL in the format of its releases; inputs are compared with those of `transformers`."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
)

from unibiomed.errors import ModelError
from unibiomed.evaluate.predict import predict_case
from unibiomed.evaluate.predictors import PredictorContext, huggingface_text, make_predictor
from unibiomed.evaluate.predictors.huggingface_internvl import InternVLPreprocessor
from unibiomed.evaluate.predictors.huggingface_text import TextPredictor
from unibiomed.train.tokenizer import train_tokenizer

SIDE = 28
TOKENS = 4
# as in releases; InternVLProcessor ignores crop_to_patches
IMAGES = {
    "crop_to_patches": False,
    "image_mean": [0.485, 0.456, 0.406],
    "image_processor_type": "GotOcr2ImageProcessorFast",
    "image_std": [0.229, 0.224, 0.225],
    "max_patches": 6,
    "min_patches": 1,
    "processor_class": "InternVLProcessor",
    "resample": 3,
    "size": {"height": SIDE, "width": SIDE},
}
NAMES = {
    "start_image_token": "<img>",
    "context_image_token": "<IMG_CONTEXT>",
    "end_image_token": "</img>",
    "video_token": "<video>",
}
TEMPLATE = (
    "{% for turn in messages %}<|user|>{% if turn['content'] is string %}{{ turn['content'] }}{% else %}"
    "{% for part in turn['content'] %}{% if part['type'] == 'image' %}<IMG_CONTEXT>\n{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The model."""
    folder = tmp_path_factory.mktemp("models") / "tiny-internvl"
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["What is in the green box of this CT image?", "No findings."] * 3, 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<video>"]})
    tokenizer.save_pretrained(folder)
    about = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(about | {"extra_special_tokens": NAMES}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_length": TOKENS, "processor_class": "InternVLProcessor"})
    )
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = InternVLConfig(
        vision_config={"hidden_size": 8, "image_size": [SIDE, SIDE], "patch_size": [7, 7], **small},
        text_config={
            "model_type": "qwen2",
            "hidden_size": 32,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            **small,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=TOKENS,
        # tied, it would say its last token again and again
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(do_sample=True, temperature=2.0, eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the folder, to be broken."""
    return shutil.copytree(folder, tmp_path / "internvl")


def change(path, **values):
    """Set fields of a JSON file; what is set to None is taken out."""
    changed = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def native(monkeypatch):
    """Return the inputs of `transformers` for an image and a question."""
    # its processor checks for a video processor, which needs torchvision
    monkeypatch.setattr(InternVLProcessor, "check_argument_for_proper_class", lambda *_: None)

    def inputs(folder, image, question):
        processor = InternVLProcessor(
            GotOcr2ImageProcessorPil.from_pretrained(folder),
            AutoTokenizer.from_pretrained(folder),
            None,
            TOKENS,
            chat_template=TEMPLATE,
        )
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        return processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )

    return inputs


@pytest.mark.parametrize(
    ("width", "height", "tiles"), [(28, 28, 1), (20, 20, 1), (90, 30, 4), (30, 61, 3), (100, 100, 5), (97, 61, 7)]
)
def test_inputs_match_transformers(folder, native, width, height, tiles):
    image, question = picture(width, height), "What is in the green box?"
    ours, wanted = InternVLPreprocessor(folder)(image, question), native(folder, image, question)
    assert ours["pixel_values"].shape == (tiles, 3, SIDE, SIDE)
    torch.testing.assert_close(ours["pixel_values"], wanted["pixel_values"], atol=1e-5, rtol=0)
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(ours[name], wanted[name])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(ours["input_ids"][0]) == (
        f"<|user|><img>{'<IMG_CONTEXT>' * TOKENS * tiles}</img>\n{question}<|end|><|assistant|>"
    )


def test_settings_of_the_folder_are_used(copy, native):
    change(copy / "preprocessor_config.json", min_patches=3, max_patches=4, image_mean=[0.5] * 3, image_std=[0.25] * 3)
    image = picture(28, 28)
    ours, wanted = InternVLPreprocessor(copy)(image, "?"), native(copy, image, "?")
    assert len(ours["pixel_values"]) == 5
    torch.testing.assert_close(ours["pixel_values"], wanted["pixel_values"], atol=1e-5, rtol=0)
    assert torch.equal(ours["input_ids"], wanted["input_ids"])


def test_default_numbers_of_tiles(copy, native):
    change(copy / "preprocessor_config.json", min_patches=None, max_patches=None)
    image = picture(28 * 4, 28 * 3)
    ours, wanted = InternVLPreprocessor(copy)(image, "?"), native(copy, image, "?")
    assert len(ours["pixel_values"]) == 13
    assert torch.equal(ours["input_ids"], wanted["input_ids"])


def test_folders_saved_by_transformers(copy):
    wanted = InternVLPreprocessor(copy)(picture(60, 30), "?")
    (copy / "preprocessor_config.json").unlink()
    change(copy / "processor_config.json", image_processor=IMAGES)
    # the template of the tokenizer is for text only
    (copy / "chat_template.jinja").write_text("{{ messages }}")
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    found = InternVLPreprocessor(copy)(picture(60, 30), "?")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_generates_text(folder, native, toy_cases, toy_training, monkeypatch):
    monkeypatch.setattr(huggingface_text, "MAX_NEW_TOKENS", 10)
    predictor = make_predictor(f"text:{folder}", PredictorContext(toy_training, "cpu"))
    assert predictor.name == "tiny-internvl" and predictor.paraphrase_tasks == predictor.tasks
    case = toy_cases(datasets=["organs"], tasks=["recognize", "classify"])[0]
    pixels = case.pixels()
    found = predict_case(predictor, case, pixels)
    assert [p.error for p in found] == [None] * 4 and all(p.seconds > 0 and not p.masks for p in found)
    assert [p.text for p in predict_case(predictor, case, pixels)] == [p.text for p in found]
    sample = next(s for s in case.samples if s.box is None)
    inputs = native(folder, Image.fromarray(pixels), sample.question)
    model = InternVLForConditionalGeneration.from_pretrained(folder).eval()
    ids = model.generate(**inputs, max_new_tokens=10, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    [text] = [p.text for p in found if p.sample == sample.id]
    assert text and text == AutoTokenizer.from_pretrained(folder).decode(ids, skip_special_tokens=True).strip()


def test_answers_depend_on_the_image(folder):
    predictor = TextPredictor(str(folder), "cpu")
    inputs = [predictor._processor(image, "?") for image in (picture(60, 30), Image.new("RGB", (60, 30)))]
    with torch.inference_mode():
        first, second = (predictor.model(**one).logits[0, -1] for one in inputs)
    assert not torch.allclose(first, second)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": None}, "size is 'None'"),
        ({"size": {"height": SIDE, "width": 14}}, "square"),
        ({"size": {"height": 10**6, "width": 10**6}}, "size is '1000000'"),
        ({"size": {"height": 42, "width": 42}}, "image_seq_length is '4', but a tile of 42 pixels has 9 tokens"),
        ({"max_patches": "6"}, "max_patches is '6', not an integer from 1 to 128"),
        ({"max_patches": 10**6}, "max_patches"),
        ({"min_patches": 0}, "min_patches"),
        ({"min_patches": 7}, "min_patches is '7', not an integer from 1 to 6"),
        ({"image_mean": None}, "three numbers"),
        ({"image_std": [1.0, 0.0, 1.0]}, "three numbers"),
        ({"resample": 0}, "resample"),
    ],
)
def test_invalid_sizes(copy, one_line, values, words):
    change(copy / "preprocessor_config.json", **values)
    with pytest.raises(ModelError, match=words) as caught:
        InternVLPreprocessor(copy)
    one_line(caught.value)


def test_inconsistent_numbers_of_tokens(copy, one_line):
    change(copy / "processor_config.json", image_seq_length=256)
    with pytest.raises(ModelError, match="image_seq_length is '256', but a tile of 28 pixels has 4 tokens") as caught:
        InternVLPreprocessor(copy)
    one_line(caught.value)


def test_tokens_of_another_model(copy, one_line):
    change(copy / "config.json", image_token_id=5)
    with pytest.raises(ModelError, match="lacks the token '<IMG_CONTEXT>'") as caught:
        InternVLPreprocessor(copy)
    one_line(caught.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "has no chat template"),
        ("{% for", "cannot be used"),
        ("{{ messages[0]['content'][1]['text'] }}", "0 placeholders for one image"),
        ("<IMG_CONTEXT><IMG_CONTEXT>", "2 placeholders for one image"),
    ],
)
def test_invalid_chat_templates(copy, one_line, template, words):
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(ModelError, match=words) as caught:
        InternVLPreprocessor(copy)
    one_line(caught.value)
