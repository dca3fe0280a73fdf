"""What names of folders and files say: modality, site, splits, masks, and what is abnormal."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = [
    "IMAGE_WORDS",
    "MASK_WORDS",
    "NORMAL_WORDS",
    "SPLIT_WORDS",
    "is_abnormal",
    "modality_of",
    "plain_words",
    "sites_in",
    "tokens",
]

# fmt: off
IMAGE_WORDS = frozenset((
    "frames", "im", "image", "images", "imagestr", "img", "imgs", "input", "inputs", "jpegimages", "orig",
    "original", "originals", "photos", "pics", "pictures", "raw", "scan", "scans", "slices", "volumes",
))
MASK_WORDS = frozenset((
    "anno", "annos", "annotation", "annotations", "contour", "contours", "groundtruth", "gt",
    "label", "labelmap", "labelmaps", "labels", "labelstr", "manual", "mask", "masks", "seg", "segm",
    "segmentation", "segmentationclass", "segmentations", "segs", "target", "targets", "truth",
))
# fmt: on
SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "tr": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "ts": "test",
}
NORMAL_WORDS = frozenset(("normal", "healthy", "no finding", "no findings", "negative", "control"))
_FILLERS = MASK_WORDS | {"images", "image", "binary", "png", "all", "of", "the", "and", "final", "original"}
_MODALITIES = (
    ("CT", r"c[be]?ct|ct|cta|ncct|hounsfield"),
    ("MRI", r"mri?|t1w?|t2w?|t1c|t1ce|t1gd|t2f|flair|dwi|adc|cine|brats|dce"),
    ("X-ray", r"xrays?|ray|rays|cxr|radiographs?|radiography|mammo\w*|dx"),
    ("ultrasound", r"us|ultrasounds?|ultrasono\w*|sono\w*|echo\w*|busi"),
    ("endoscopy", r"endoscop\w*|colonoscop\w*|gastroscop\w*|laparoscop\w*|kvasir|polyps?"),
    ("dermoscopy", r"dermo?scop\w*|dermatoscop\w*|dermoscopy|isic|ham10000"),
    ("fundus", r"fundus|fundi|funduscop\w*|ophthalmoscop\w*"),
    ("OCT", r"octa?"),
    ("pathology", r"(histo)?patholog\w*|histolog\w*|microscop\w*|wsi|nuclei|nucleus|smears?|cytolog\w*|hne"),
    ("PET", r"pet|fdg|suv"),
)
_SITES = (
    ("brain", r"brains?|cerebr\w*|glioma|gliomas|brats|hippocamp\w*|intracranial|stroke"),
    ("chest", r"chest|thorax|thoracic|lungs?|cxr|covid\w*|pneumo\w*|pulmonary|mediastin\w*|pleural"),
    ("breast", r"breasts?|busi|mammo\w*"),
    ("abdomen", r"abdom\w*|liver|hepatic|kidneys?|renal|pancrea\w*|spleen|stomach"),
    ("heart", r"heart|cardiac|cardio\w*|ventric\w*|myocardi\w*|atrium|atria"),
    ("colon", r"colon|colonoscop\w*|polyps?|colorectal|kvasir"),
    ("skin", r"skin|dermo?scop\w*|isic|melanoma\w*|ham10000"),
    ("retina", r"retina|retinal|fundus|optic|oct|macula\w*"),
    ("thyroid", r"thyroid"),
    ("prostate", r"prostat\w*"),
    ("spine", r"spine|spinal|vertebra\w*|lumbar"),
    ("knee", r"knees?|menisc\w*"),
    ("fetus", r"fetal|fetus|foetal"),
    ("cell", r"cells?|nuclei|nucleus|smears?"),
    ("bone", r"bones?|femur|pelvis|hip"),
)
_ABNORMAL = re.compile(
    r"tumou?r|lesion|cancer|carcinom|malignan|neoplas|polyp|nodul|glioma|meningiom|adenom|metasta|melanom|h[ae]*morrhag"
    r"|o?edema|effusion|pneumothorax|pneumoni|opacit|consolidat|infect|infarct|stroke|cyst\b|cysts\b|mass\b|fractur"
    r"|exudat|aneurysm|stenos|thromb|ulcer|abscess|sarcoma|lymphoma|calcificat|stone|abnormal",
    re.IGNORECASE,
)


def tokens(text: str) -> list[str]:
    """Words of a file name in small letters: cut at signs and where a capital follows a small letter."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return [word for word in re.split(r"[^a-z0-9]+", apart.lower()) if word]


def plain_words(text: str) -> str:
    """What a name says beside that it is a mask: ``"__left_lung_mask"`` becomes ``"left lung"``."""
    said = " ".join(tokens(text)).replace("ground truth", "")
    words = [word for word in said.split() if word.rstrip("0123456789") not in _FILLERS]
    return " ".join(words) if any(re.search("[a-z]{2}", word) for word in words) else ""


def modality_of(text: str) -> list[str]:
    """Modalities that a name speaks of."""
    return _told(text, _MODALITIES)


def sites_in(texts: Iterable[str]) -> list[str]:
    """Sites that names speak of, each once."""
    return list(dict.fromkeys(site for text in texts for site in _told(text, _SITES)))


def _told(text: str, known: tuple[tuple[str, str], ...]) -> list[str]:
    # "UltraSound" is one word, "CTScan" two.
    words = {*tokens(text), *tokens(text.lower())}
    return [name for name, expression in known if any(re.fullmatch(expression, word) for word in words)]


def is_abnormal(name: str) -> bool:
    """Whether a target's name is that of a finding rather than of anatomy."""
    return _ABNORMAL.search(name) is not None
