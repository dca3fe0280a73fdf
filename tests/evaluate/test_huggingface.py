"""Tiny random models of `transformers`, made from configurations: no weights are downloaded."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Sam2Config,
    Sam2Model,
    Sam2VideoConfig,
    Sam2VideoModel,
    SamConfig,
    SamImageProcessorPil,
    SamModel,
    SamProcessor,
)

from unibiomed.errors import InputError, ModelError
from unibiomed.evaluate.predict import predict_case
from unibiomed.evaluate.predictors import PredictorContext, huggingface_text, make_predictor
from unibiomed.evaluate.predictors.huggingface_masks import SamPredictor
from unibiomed.evaluate.predictors.huggingface_text import TextPredictor, read_findings
from unibiomed.evaluate.suite import PerturbationOptions
from unibiomed.findings import NO_FINDINGS
from unibiomed.images.geometry import mask_box
from unibiomed.train.tokenizer import train_tokenizer

SIDE = 64
SIZE = (20, 30)
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 4}
DECODER = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "mlp_dim": 32,
    "iou_head_hidden_dim": 16,
}
SAM = {
    "vision_config": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "global_attn_indexes": [1],
        "window_size": 2,
        "output_channels": 32,
        "mlp_dim": 32,
        "num_pos_feats": 16,
    },
    "prompt_encoder_config": PROMPTS,
    "mask_decoder_config": DECODER,
}
SAM2 = {
    "vision_config": {
        "backbone_config": {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "num_attention_heads": 1,
            "embed_dim_per_stage": [8, 16, 32, 64],
            "blocks_per_stage": [1, 1, 1, 1],
            "num_attention_heads_per_stage": [1, 1, 1, 1],
            "image_size": [SIDE, SIDE],
            "global_attention_blocks": [],
            "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    },
    "prompt_encoder_config": PROMPTS,
    "mask_decoder_config": DECODER,
}
MEMORY = {
    "image_size": SIDE,
    "memory_attention_hidden_size": 32,
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 8,
}
TEMPLATE = (
    "{% for turn in messages %}{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} Answer:{% endif %}"
)


def write_sam(folder):
    SamModel(SamConfig(**SAM)).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    cells = {"height": SIDE // 4, "width": SIDE // 4}
    reader = SamImageProcessorPil(
        size={"longest_edge": SIDE}, pad_size=square, mask_size={"longest_edge": SIDE // 4}, mask_pad_size=cells
    )
    SamProcessor(reader).save_pretrained(folder)


def write_sam2(folder):
    Sam2Model(Sam2Config(**SAM2)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.25] * 3}))


def write_sam2_video(folder):
    Sam2VideoModel(Sam2VideoConfig(**SAM2, **MEMORY)).save_pretrained(folder)


def write_llava(folder):
    tokenizer = train_tokenizer(["What is in the green box of this CT image?", "No findings.", "Answer:"] * 3, 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    reader = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        reader,
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = LlavaConfig(
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "image_size": 32,
            "patch_size": 16,
            "projection_dim": 16,
            **small,
        },
        text_config={
            "model_type": "llama",
            "hidden_size": 32,
            "num_key_value_heads": 2,
            "vocab_size": len(tokenizer),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": 0,
            "bos_token_id": 0,
            **small,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=4,
    )
    model = LlavaForConditionalGeneration(config)
    # as releases have it; judged is the likeliest answer all the same
    model.generation_config = GenerationConfig(do_sample=True, temperature=2.0, eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder)


WRITERS = {"sam": write_sam, "sam2": write_sam2, "sam2_video": write_sam2_video, "llava": write_llava}
KINDS = ["sam", "sam2", "sam2_video"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """Folder of each kind of model."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for kind, write in WRITERS.items():
        (root / f"tiny-{kind}").mkdir()
        write(root / f"tiny-{kind}")
    return root


@pytest.fixture
def copy(models, tmp_path):
    """Copy the folder of a model."""

    def make(kind):
        return shutil.copytree(models / f"tiny-{kind}", tmp_path / kind)

    return make


def boxes_as_masks(predictor, monkeypatch):
    """Replace the model by one that fills its box, in order to test the transformation of boxes and masks."""
    calls = []

    def embed(pixel_values):
        calls.append(pixel_values)
        return pixel_values

    def fill(image_embeddings, input_boxes, multimask_output):
        y, x = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
        masks = [(x > a) & (y > b) & (x < c) & (y < d) for a, b, c, d in input_boxes[0].tolist()]
        logits = torch.stack(masks)[None, :, None].float() * 20 - 10
        return SimpleNamespace(pred_masks=logits, iou_scores=torch.full((1, len(masks), 1), 1.5))

    model = SimpleNamespace(get_image_embeddings=embed)
    monkeypatch.setattr(predictor, "model", type("Fake", (), {"__call__": staticmethod(fill), **vars(model)})())
    predictor.model.get_image_embeddings = embed
    return calls


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize("kind", KINDS)
def test_all_sam_models(models, segment_case, toy_training, kind):
    predictor = make_predictor(f"sam:{models / f'tiny-{kind}'}", PredictorContext(toy_training, "cpu"))
    assert predictor.name == f"tiny-{kind} (box)" and predictor.true_box
    assert predictor.tasks == {"segment", "outline"} and not predictor.paraphrase_tasks
    assert predictor.note.startswith("is given the ground-truth box")
    liver, tumor, other = predict_case(predictor, segment_case, segment_case.pixels())
    assert [p.error for p in (liver, tumor, other)] == [None] * 3
    assert [p.labels[0] for p in (liver, tumor)] == ["liver", "liver tumor"]
    # the box reveals the presence, so there is no presence score
    assert liver.scores == (None,) and 0 <= liver.mask_scores[0] <= 1 and liver.seconds > 0
    assert not other.decode(SIZE)[0].any() and other.mask_scores == (None,)
    assert predict_case(predictor, segment_case, segment_case.pixels())[0].masks == liver.masks


def test_sam_matches_transformers(models, segment_case):
    folder, pixels = models / "tiny-sam", segment_case.pixels()
    predictor = SamPredictor(str(folder), "cpu")
    found = predictor.predict(segment_case, pixels)
    model, processor = SamModel.from_pretrained(folder).eval(), SamProcessor.from_pretrained(folder)
    for number, prediction in enumerate(found[:2]):
        box = mask_box(segment_case.masks(SIZE)[number])
        inputs = processor(images=pixels, input_boxes=[[[float(v) for v in box]]], return_tensors="pt")
        inputs["input_boxes"] = inputs["input_boxes"].float()
        with torch.inference_mode():
            out = model(pixel_values=inputs["pixel_values"], input_boxes=inputs["input_boxes"], multimask_output=False)
        sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
        [mask] = processor.post_process_masks(out.pred_masks, *sizes)
        assert np.array_equal(prediction.decode(SIZE)[0], mask[0, 0].numpy())
        assert prediction.mask_scores[0] == pytest.approx(float(out.iou_scores[0, 0, 0].clamp(0, 1)), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_match_their_boxes(models, toy_cases, monkeypatch, kind):
    predictor = SamPredictor(str(models / f"tiny-{kind}"), "cpu")
    calls = boxes_as_masks(predictor, monkeypatch)
    words = {"segment": ["Where is the {target}?"]}
    cases = toy_cases(
        datasets=["organs"],
        tasks=["segment"],
        perturbations=PerturbationOptions(["flip", "rotation"], limit=3),
        paraphrases=words,
    )
    for case in cases:
        calls.clear()
        masks = case.masks(SIZE)
        found = predict_case(predictor, case, case.pixels())
        for sample, prediction in zip(case.samples, found, strict=True):
            box = mask_box(case.truths(sample, masks, SIZE)[0])
            got = mask_box(prediction.decode(SIZE)[0])
            assert (got is None) == (box is None)
            assert box is None or np.abs(np.subtract(got, box)).max() <= 1
            assert prediction.mask_scores == ((None,) if box is None else (1.0,))
        # the image is encoded once if any target is present
        assert len(calls) == any(mask.any() for mask in masks.values())
        assert all(values.shape == (1, 3, SIDE, SIDE) for values in calls)


def test_sam2_uses_settings_of_its_folder(models, segment_case, monkeypatch):
    values = {}
    for kind in ("sam2", "sam2_video"):
        predictor = SamPredictor(str(models / f"tiny-{kind}"), "cpu")
        calls = boxes_as_masks(predictor, monkeypatch)
        predictor.predict(segment_case, np.full((*SIZE, 3), 255, np.uint8))
        values[kind] = calls[0][0, :, 5, 5]
    assert torch.allclose(values["sam2"], torch.full((3,), 2.0))
    # default: ImageNet
    wanted = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(values["sam2_video"], wanted)


def test_models_without_box_prompts(copy, one_line):
    folder = copy("sam")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ModelError, match="is a model of type 'bert': 'sam:' supports sam, sam2, sam2_video") as caught:
        SamPredictor(str(folder))
    one_line(caught.value)


def test_missing_weights_are_an_error(copy, one_line):
    from safetensors.torch import load_file, save_file

    folder = copy("sam2")
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in state if name.startswith("mask_decoder"))
    del state[gone]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 weights") as caught:
        SamPredictor(str(folder), "cpu")
    assert gone in str(caught.value)
    one_line(caught.value)


@pytest.mark.parametrize("kind", ["sam", "llava"])
def test_pickled_weights_are_not_read(copy, one_line, kind):
    folder = copy(kind)
    predictor = SamPredictor if kind == "sam" else TextPredictor
    torch.save({"weights": torch.zeros(1)}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="safetensors") as caught:
        predictor(str(folder), "cpu")
    one_line(caught.value)


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00" * 64])
def test_broken_weights(copy, one_line, content):
    folder = copy("sam")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be loaded as SamModel") as caught:
        SamPredictor(str(folder), "cpu")
    one_line(caught.value)


def test_invalid_normalisation(copy):
    folder = copy("sam2")
    (folder / "preprocessor_config.json").write_text('{"image_mean": [0.5]}')
    with pytest.raises(ModelError, match="three numbers"):
        SamPredictor(str(folder), "cpu")


def test_unknown_model_or_device(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for predictor in (SamPredictor, TextPredictor):
        with pytest.raises(ModelError, match="is not a folder"):
            predictor("nowhere")
    with pytest.raises(InputError, match="device 'abacus' is not available"):
        SamPredictor(str(models / "tiny-sam"), "abacus")


# ---------------------------------------------------------------- texts


@pytest.fixture(scope="module")
def llava(models):
    return TextPredictor(str(models / "tiny-llava"), "cpu")


def test_text_model(llava, toy_cases, monkeypatch):
    monkeypatch.setattr(huggingface_text, "MAX_NEW_TOKENS", 10)
    assert llava.name == "tiny-llava" and llava.tasks == {"recognize", "classify", "describe", "ask"}
    tasks = ["recognize", "classify"]
    case = toy_cases(datasets=["organs"], tasks=tasks)[0]
    found = predict_case(llava, case, case.pixels())
    assert [p.error for p in found] == [None] * 4 and all(p.seconds > 0 and not p.masks for p in found)
    assert any(p.text for p in found)
    # greedy decoding, although the generation config has sampling
    assert [p.text for p in predict_case(llava, case, case.pixels())] == [p.text for p in found]
    # neither the question nor special tokens are part of the answer
    assert not any("Answer:" in p.text or "<image>" in p.text or "<|im_end|>" in p.text for p in found)


def test_released_llava_format(copy, llava, toy_cases, monkeypatch):
    monkeypatch.setattr(huggingface_text, "MAX_NEW_TOKENS", 10)
    folder = copy("llava")
    about = json.loads((folder / "processor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(about.pop("image_processor")))
    (folder / "processor_config.json").write_text(json.dumps(about))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    (folder / "chat_template.jinja").unlink()
    case = toy_cases(datasets=["organs"], tasks=["recognize", "classify"])[0]
    found = TextPredictor(str(folder), "cpu").predict(case, case.pixels())
    assert [p.text for p in found] == [p.text for p in llava.predict(case, case.pixels())]


def test_inputs_of_a_text_model(llava, toy_cases, monkeypatch):
    case = toy_cases(datasets=["organs"], tasks=["recognize", "classify", "describe"])[0]
    calls = []

    def answer(image, question):
        calls.append((np.asarray(image), question))
        return "Liver in abdomen CT."

    monkeypatch.setattr(llava, "_answer", answer)
    pixels = case.pixels()
    found = {p.sample.partition("#")[2]: p for p in llava.predict(case, pixels)}
    assert [question for _, question in calls] == [s.question for s in case.samples]
    for (image, _), sample in zip(calls, case.samples, strict=True):
        changed = (image != pixels).any(2)
        if sample.box is None:
            assert not changed.any()
            continue
        x0, y0, x1, y1 = sample.box
        frame = np.zeros(SIZE, dtype=bool)
        frame[y0:y1, x0:x1] = True
        frame[y0 + 2 : y1 - 2, x0 + 2 : x1 - 2] = False
        assert np.array_equal(changed, frame) and (image[frame] == (0, 255, 0)).all()
    assert found["classify/0"].labels == ("Liver",)
    assert found["recognize"].labels == ("Liver in abdomen CT",)
    assert found["describe/0"].labels == () and found["describe/0"].text == "Liver in abdomen CT."


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("It is [SEG]. Glioma. It is [SEG]. Edema", ("Glioma", "Edema")),
        ("Pneumonia in the left lung.", ("Pneumonia in the left lung",)),
        ("A cyst. There is no other abnormality.", ("A cyst. There is no other abnormality",)),
        ("No other abnormality but a cyst is seen.", ("No other abnormality but a cyst is seen",)),
        ("Nodule", ("Nodule",)),
        ("No contrast was given; a mass is seen.", ("No contrast was given; a mass is seen",)),
        ("Yes, I can see any abnormality: pneumonia", ("Yes, I can see any abnormality: pneumonia",)),
        ("This is not a normal finding.", ("This is not a normal finding",)),
        ("The lung shows a mass, no other findings.", ("The lung shows a mass, no other findings",)),
        (
            "There is a glioma with no other abnormal findings.",
            ("There is a glioma with no other abnormal findings",),
        ),
        ("No, there is a mass in the left lung.", ("No, there is a mass in the left lung",)),
        ("A polyp is seen without other abnormalities.", ("A polyp is seen without other abnormalities",)),
        ("A cyst without further findings", ("A cyst without further findings",)),
        ("This is a chest X-ray image with no abnormal findings.", (NO_FINDINGS,)),
        ("None, everything is normal", (NO_FINDINGS,)),
        ("", ()),
        (" \n", ()),
        ("No findings.", (NO_FINDINGS,)),
        ("no findings", (NO_FINDINGS,)),
        ("No.", (NO_FINDINGS,)),
        ("No, the lungs are clear.", (NO_FINDINGS,)),
        ("Nothing abnormal", (NO_FINDINGS,)),
        ("I don't see an abnormality.", (NO_FINDINGS,)),
        ("No abnormality is visible.", (NO_FINDINGS,)),
        ("There are no visible abnormalities in this CT image.", (NO_FINDINGS,)),
        ("The image does not show any clear abnormality.", (NO_FINDINGS,)),
        ("I cannot see any abnormal findings.", (NO_FINDINGS,)),
    ],
)
def test_findings_of_an_answer(text, labels):
    assert read_findings(text) == labels


def test_model_without_chat_template(copy, one_line):
    folder = copy("llava")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template") as caught:
        TextPredictor(str(folder), "cpu")
    one_line(caught.value)


@pytest.mark.parametrize("kind", ["llava", "internvl_chat"])
def test_remote_code_is_not_run(copy, tmp_path, one_line, kind):
    folder, sign = copy("llava"), tmp_path / "was here"
    for name in ("config.json", "processor_config.json", "tokenizer_config.json"):
        values = json.loads((folder / name).read_text())
        values["auto_map"] = {
            "AutoConfig": "custom.Model",
            "AutoModelForImageTextToText": "custom.Model",
            "AutoProcessor": "custom.Model",
            "AutoTokenizer": ["custom.Model", None],
        }
        (folder / name).write_text(json.dumps(values | {"model_type": kind}))
    (folder / "custom.py").write_text(f"open({str(sign)!r}, 'w')\nclass Model: pass\n")
    if kind == "llava":
        TextPredictor(str(folder), "cpu")
    else:
        with pytest.raises(ModelError, match="of type 'internvl_chat', which transformers does not support") as caught:
            TextPredictor(str(folder), "cpu")
        one_line(caught.value)
    assert not sign.exists()


def test_templates_are_fetched_from_the_hub(models, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = []

    def snapshot(name, allow_patterns):
        calls.append((name, allow_patterns))
        return str(models / "tiny-llava")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert TextPredictor("somebody/talker", "cpu").name == "talker"
    assert calls == [("somebody/talker", ["*.json", "*.safetensors", "*.txt", "*.jinja"])]
