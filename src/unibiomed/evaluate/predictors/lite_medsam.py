"""LiteMedSAM (Ma et al., the MedSAM group), the small MedSAM: given a box, it outlines what is in it."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from unibiomed.data.index import file_sha256
from unibiomed.images.geometry import Box
from unibiomed.model.lite_medsam import INSTALLED, find_weights, load_lite_medsam, read_square

from .base import LITE_MEDSAM, add_box_suffix
from .box_prompts import BoxOutlines, BoxPredictor
from .loading import select_device

__all__ = ["LiteMedSamPredictor"]


class LiteMedSamPredictor(BoxPredictor):
    """LiteMedSAM as a predictor.

    Parameters
    ----------
    weights : str
        ``"lite"`` for those of the installed package, or the path of ``lite_medsam.pth``.
    device : str, optional
        The best there is when left out.

    Raises
    ------
    InputError
        The device cannot be used.
    ModelError
        The weights are missing or broken.
    """

    def __init__(self, weights: str = INSTALLED, device: str | None = None) -> None:
        path = find_weights(weights)
        self.name = add_box_suffix(LITE_MEDSAM)
        self.fingerprint = file_sha256(path)[:16]
        self.device = select_device(device)
        self.model = load_lite_medsam(path).to(self.device)

    @torch.inference_mode()
    def outline(self, pixels: np.ndarray, boxes: list[Box]) -> BoxOutlines:
        """See :meth:`.BoxPredictor.outline`; preprocessing and threshold are the published ones."""
        height, width = pixels.shape[:2]
        square, scale = read_square(pixels)
        features = self.model.image_encoder(square.to(self.device))
        # SAM's boxes end in their last pixel, and each pixel counts at its centre
        corners = torch.tensor([(x0, y0, x1 - 1, y1 - 1) for x0, y0, x1, y1 in boxes], dtype=torch.float32)
        corners = corners.to(self.device) * scale
        logits, quality = self.model.outline(features, corners[None])
        rows, columns = (round(side * scale) for side in (height, width))
        out: BoxOutlines = {}
        for box, one, score in zip(boxes, logits[0], quality[0].clamp(0, 1).tolist(), strict=True):
            # one at a time: at the size of the image they may be large
            shown = one[None, None, : max(rows, 1), : max(columns, 1)]
            large = F.interpolate(shown, size=(height, width), mode="bilinear", align_corners=False)
            out[box] = (large[0, 0] > 0).cpu().numpy(), score
        return out
