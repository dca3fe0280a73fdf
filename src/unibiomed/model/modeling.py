"""UniBiomed: a multimodal language model whose hidden states at ``[SEG]`` prompt SAM2 (paper section 4.1).

The model combines InternVL and SAM2 of ``transformers`` with a two-layer grounding head. SAM2's image encoder runs once
per image, for any number of questions and targets, and all masks of an image are decoded in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers.models.internvl import InternVLForConditionalGeneration
from transformers.utils import ModelOutput

from .box_decoder import BoxDecoder
from .configuration import UniBiomedConfig
from .context import ContextMatch, product_logit
from .lite_medsam import LiteMedSam
from .mask_refiner import CHANNELS, MaskDecoder, MaskRefiner
from .region import RegionSummary


@dataclass
class ImageFeatures:
    """Features of a batch of images for the language model and the mask decoder; reused for all questions.

    Attributes
    ----------
    tokens : list of torch.Tensor
        Tokens of each image for the language model, (tiles * tokens per tile, hidden size).
    maps : tuple of torch.Tensor
        SAM2's features for the mask decoder, at strides 4, 8 and 16:
        (images, width / 8, h / 4, w / 4), (images, width / 4, h / 8, w / 8), (images, width, h / 16, w / 16). Models
        with ``fine_masks`` have a fourth map, (images, channels, h / 2, w / 2).
    """

    tokens: list[torch.Tensor]
    maps: tuple[torch.Tensor, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass
class MaskPrediction(ModelOutput):
    """Predicted masks of N ``[SEG]`` tokens, before thresholding.

    Attributes
    ----------
    logits : torch.Tensor
        Mask logits, (N, candidates, image_size / 4, image_size / 4). The published model has 3 candidates. With
        ``fine_masks`` the side is image_size.
    predicted_iou : torch.Tensor
        Predicted IoU of each candidate, (N, candidates), in [0, 1].
    presence_logits : torch.Tensor
        Object-score logits, (N,): whether the target is in the image.
    """

    logits: torch.Tensor | None = None
    predicted_iou: torch.Tensor | None = None
    presence_logits: torch.Tensor | None = None

    def best(self) -> torch.Tensor:
        """Logits of the candidate with the highest predicted IoU, (N, side, side)."""
        assert self.logits is not None and self.predicted_iou is not None
        return self.logits[torch.arange(len(self.logits)), self.predicted_iou.argmax(1)]

    def peak(self) -> torch.Tensor:
        """Mean of the highest 0.5 % of the logits of the best candidate, (N,).

        For absent targets the mask logits are often more reliable than the object score.
        """
        flat = self.best().float().flatten(1)
        return flat.topk(max(1, flat.shape[1] // 200), dim=1).values.mean(1)


@dataclass
class UniBiomedOutput(ModelOutput):
    """Output of :meth:`UniBiomedModel.forward`.

    Attributes
    ----------
    loss : torch.Tensor or None
        Cross-entropy of the text (paper equation 4), the mean over all labelled tokens. Mask losses are computed by the
        trainer.
    logits : torch.Tensor
        Next-token logits, (batch, length, vocabulary). If labels are given, only those that predict a label, in row
        order, (labels, vocabulary).
    masks : MaskPrediction or None
        Masks of all ``[SEG]`` tokens of the batch, in row order; None if there are none.
    seg_rows : torch.Tensor
        Row of each ``[SEG]`` token in the batch, (N,).
    seg_states : torch.Tensor
        Outputs of the grounding head, (N, prompt width).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    masks: MaskPrediction | None = None
    seg_rows: torch.Tensor | None = None
    seg_states: torch.Tensor | None = None


class NoPositions(nn.Module):
    """Replaces the positional encoding of SAM2's neck, which only its video memory reads, to save time."""

    def forward(self, shape: torch.Size, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """Return an empty tensor with as many dimensions as the positional encoding."""
        return torch.empty(0, 0, 0, 0, device=device, dtype=dtype)


class UniBiomedModel(PreTrainedModel):
    """The UniBiomed model at any size; see :class:`~unibiomed.model.configuration.UniBiomedConfig`."""

    config_class = UniBiomedConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "mllm.lm_head.weight": "mllm.model.language_model.embed_tokens.weight"
    }

    def __init__(self, config: UniBiomedConfig) -> None:
        super().__init__(config)
        hidden = config.hidden_size
        assert config.mllm_config is not None and config.grounding_config is not None
        for part in (config.mllm_config, config.grounding_config):
            part._attn_implementation = config._attn_implementation  # type: ignore[union-attr]
        self.mllm = InternVLForConditionalGeneration(config.mllm_config)
        self.grounding = AutoModel.from_config(config.grounding_config)
        self.grounding.vision_encoder.neck.position_encoding = NoPositions()
        prompt_width = config.grounding_config.prompt_encoder_config.hidden_size  # type: ignore[union-attr]
        self.grounding_head = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt_width))
        if config.region_summary:
            self.region = RegionSummary(prompt_width, hidden)
        if config.fine_masks:
            self.grounding.mask_decoder = MaskDecoder(config.grounding_config.mask_decoder_config)  # type: ignore[union-attr]
            self.fine = MaskRefiner(prompt_width)
        if config.context_match:
            self.context = ContextMatch(prompt_width)
        if config.box_decoder:
            self.box_decoder = self._new_box_decoder()
        self.post_init()
        if config.fine_masks:
            self.fine.zero_init()

    def _new_box_decoder(self) -> BoxDecoder:
        width = self.config.grounding_config.prompt_encoder_config.hidden_size
        return BoxDecoder(width, CHANNELS if self.config.fine_masks else 0)

    def add_box_decoder(self, teacher: LiteMedSam, seed: int) -> None:
        """Add a box decoder that is initialized with LiteMedSAM's weights; its neck has to be trained.

        Parameters
        ----------
        teacher : LiteMedSam
            The model whose weights are copied.
        seed : int
            Seed of the random weights of the neck; other random numbers are not affected.
        """
        assert not self.config.box_decoder, "the model already has a box decoder"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.box_decoder = self._new_box_decoder()
        self.box_decoder.start_from(teacher)
        self.config.box_decoder = True

    def get_input_embeddings(self) -> nn.Module:
        """Token embeddings of the language model."""
        return self.mllm.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embeddings of the language model."""
        self.mllm.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Output projection of the language model, from hidden states to the vocabulary."""
        return self.mllm.get_output_embeddings()

    def set_image_size(self, size: int) -> None:
        """Change the side of SAM2's square input, for example between training stages; no weight depends on it.

        Parameters
        ----------
        size : int
            Side in pixels, a multiple of 32. With ``shared_vision`` the language model receives (size / 32)² tokens.
        """
        grounding = self.config.grounding_config
        prompts, vision = grounding.prompt_encoder_config, grounding.vision_config
        patch = prompts.patch_size
        assert size % 32 == 0, f"an image side of {size} is no multiple of 32"
        prompts.image_size = size
        side = size // patch
        vision.backbone_feature_sizes = [[4 * side, 4 * side], [2 * side, 2 * side], [side, side]]
        encoder = self.grounding.prompt_encoder
        encoder.image_embedding_size = (side, side)
        encoder.mask_input_size = (4 * side, 4 * side)
        encoder.input_image_size = size
        if self.config.shared_vision:
            self.config.mllm_config.image_seq_length = (size // 32) ** 2

    # ---------------------------------------------------------------- images

    def encode_grounding(self, grounding_pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """SAM2's features at strides 4, 8 and 16 of pixels (images, 3, image_size, image_size).

        All three have the width of the neck: the mask decoder's projections of the first two, and the "no memory"
        embedding of the last, are not applied yet.
        """
        maps = self.grounding.vision_encoder(grounding_pixels.to(self.dtype)).fpn_hidden_states
        return maps[0], maps[1], maps[2]

    def encode_image(
        self,
        grounding_pixels: torch.Tensor,
        tile_pixels: torch.Tensor | None = None,
        tile_counts: list[int] | None = None,
        *,
        text: bool = True,
    ) -> ImageFeatures:
        """Encode a batch of images.

        Parameters
        ----------
        grounding_pixels : torch.Tensor
            Normalized pixels for SAM2, (images, 3, image_size, image_size).
        tile_pixels : torch.Tensor, optional
            Normalized tiles of all images for the vision tower, (tiles, 3, 448, 448); not used with ``shared_vision``.
        tile_counts : list of int, optional
            Number of tiles of each image.
        text : bool
            Whether to compute the tokens for the language model.

        Returns
        -------
        ImageFeatures
        """
        s4, s8, s16 = self.encode_grounding(grounding_pixels)
        decoder = self.grounding.mask_decoder
        deepest = s16 + self.grounding.no_memory_embedding.view(1, -1, 1, 1)
        maps: tuple[torch.Tensor, ...] = (decoder.conv_s0(s4), decoder.conv_s1(s8), deepest)
        tokens: list[torch.Tensor] = []
        if text:
            if self.config.shared_vision:
                made = self._project(s16)
                if self.config.region_summary:
                    made = made + self.region(maps)[:, None]
                tokens = list(made.unbind(0))
            else:
                assert tile_pixels is not None and tile_counts is not None, "this model needs the tiles too"
                features = self._project(tile_pixels)
                tokens = [part.flatten(0, 1) for part in features.split(tile_counts)]
        if self.config.fine_masks:
            maps += (self.fine.image_features(grounding_pixels.to(self.dtype)),)
        return ImageFeatures(tokens, maps)

    def _project(self, pixels: torch.Tensor) -> torch.Tensor:
        inner = self.mllm.model
        return inner.get_image_features(
            pixels.to(self.dtype),
            vision_feature_layer=self.config.mllm_config.vision_feature_layer,
            vision_feature_select_strategy=self.config.mllm_config.vision_feature_select_strategy,
        ).pooler_output

    def embed(self, input_ids: torch.Tensor, tokens: list[torch.Tensor] | None = None) -> torch.Tensor:
        """Input embeddings with the image tokens inserted.

        Parameters
        ----------
        input_ids : torch.Tensor
            Token ids, (batch, length).
        tokens : list of torch.Tensor, optional
            Image tokens of the rows with an image, in order; as many as there are placeholders in `input_ids`.

        Returns
        -------
        torch.Tensor
            (batch, length, hidden size).
        """
        embeds = self.get_input_embeddings()(input_ids)
        if tokens:
            places = input_ids == self.config.mllm_config.image_token_id
            flat = torch.cat(tokens).to(embeds.dtype)
            assert int(places.sum()) == len(flat), f"{int(places.sum())} image places, {len(flat)} image tokens"
            embeds = embeds.masked_scatter(places.unsqueeze(-1), flat)
        return embeds

    # ---------------------------------------------------------------- masks

    def decode_masks(
        self,
        maps: tuple[torch.Tensor, ...],
        prompts: torch.Tensor | None = None,
        image_index: torch.Tensor | None = None,
        *,
        boxes: torch.Tensor | None = None,
    ) -> MaskPrediction:
        """Decode the masks of all prompts in one call of SAM2's mask decoder.

        Parameters
        ----------
        maps : tuple of torch.Tensor
            ``ImageFeatures.maps``; with `prompts`, of squares of any side that the encoder reads.
        prompts : torch.Tensor, optional
            Outputs of the grounding head, (N, prompt width).
        image_index : torch.Tensor, optional
            Index of the image of each prompt, (N,); None for a single image.
        boxes : torch.Tensor, optional
            Boxes x0, y0, x1, y1 in pixels of SAM2's input, (N, 4), instead of `prompts`; they are encoded by SAM2's
            prompt encoder.

        Returns
        -------
        MaskPrediction
            For boxes, ``presence_logits`` are SAM2's object scores without the image–target match.
        """
        assert (prompts is None) != (boxes is None), "give prompts or boxes"
        number = len(prompts) if prompts is not None else len(boxes)  # type: ignore[arg-type]
        images, per_image = (1, number) if image_index is None else (number, 1)
        deepest = maps[2]
        if image_index is not None:
            maps = tuple(m[image_index] for m in maps)
        grounding = self.grounding
        sparse, dense = self._prompt_tokens(prompts, boxes, images, per_image, maps[2])
        position = self._positions(maps[2]).expand(images, -1, -1, -1)
        if self.config.fine_masks:
            decoded = grounding.mask_decoder(maps[2] + dense, position, sparse, maps[:2])
            logits, predicted_iou, tokens, presence, known = decoded
            logits = self.fine(logits, tokens, known, maps[0], maps[3])
        else:
            logits, predicted_iou, _, presence = grounding.mask_decoder(
                image_embeddings=maps[2],
                image_positional_embeddings=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                high_resolution_features=[maps[0], maps[1]],
            )
            logits, predicted_iou, presence = logits.flatten(0, 1), predicted_iou.flatten(0, 1), presence.flatten()
        if prompts is not None:
            presence = self._limit_presence(presence, deepest, prompts, image_index)
        return MaskPrediction(logits=logits, predicted_iou=predicted_iou, presence_logits=presence)

    def decode_boxes(
        self, maps: tuple[torch.Tensor, ...], boxes: torch.Tensor, image_index: torch.Tensor | None = None
    ) -> MaskPrediction:
        """Segment boxes with the box decoder if the model has one, otherwise with SAM2's box prompt.

        Parameters
        ----------
        maps : tuple of torch.Tensor
            ``ImageFeatures.maps``.
        boxes : torch.Tensor
            Boxes x0, y0, x1, y1 in pixels of the model input, (N, 4).
        image_index : torch.Tensor, optional
            Index of the image of each box, (N,); None for a single image.

        Returns
        -------
        MaskPrediction
            The box decoder predicts one candidate, with a side of 256, and no presence.
        """
        if not self.config.box_decoder:
            return self.decode_masks(maps, None, image_index, boxes=boxes)
        features = self.box_decoder.neck(maps)
        logits, iou = self.box_decoder.decode(features, boxes, self.config.image_size, image_index)
        return MaskPrediction(logits=logits[:, None], predicted_iou=iou[:, None])

    def presence_logits(
        self, maps: tuple[torch.Tensor, ...], prompts: torch.Tensor, image_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Presence logits of prompts, (N,), equal to those of :meth:`decode_masks`, without decoding masks.

        Only for models with ``fine_masks``, whose mask decoder can omit the upscaling.
        """
        assert self.config.fine_masks, "only the mask decoder of models with fine_masks can omit the masks"
        images, per_image = (1, len(prompts)) if image_index is None else (len(prompts), 1)
        features = maps[2] if image_index is None else maps[2][image_index]
        sparse, dense = self._prompt_tokens(prompts, None, images, per_image, features)
        position = self._positions(features).expand(images, -1, -1, -1)
        presence = self.grounding.mask_decoder.object_scores(features + dense, position, sparse)
        return self._limit_presence(presence, maps[2], prompts, image_index)

    def _prompt_tokens(
        self,
        prompts: torch.Tensor | None,
        boxes: torch.Tensor | None,
        images: int,
        per_image: int,
        like: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sparse embeddings (images, prompts, tokens, width) and dense embedding of SAM2's prompt encoder."""
        encoder = self.grounding.prompt_encoder
        if boxes is not None:
            corners = boxes.view(images, per_image, 4).to(like.dtype)
            sparse, dense = encoder(input_points=None, input_labels=None, input_boxes=corners, input_masks=None)
            return sparse, dense
        assert prompts is not None
        points = torch.zeros(images, per_image, 1, 2, device=like.device, dtype=like.dtype)
        labels = -torch.ones(images, per_image, 1, device=like.device, dtype=torch.int32)
        sparse, dense = encoder(input_points=points, input_labels=labels, input_boxes=None, input_masks=None)
        # the dense embedding is the same everywhere: another image side than the model's own needs more of it
        dense = dense[:, :, :1, :1].expand(-1, -1, *like.shape[-2:])
        return torch.cat([sparse, prompts.view(images, per_image, 1, -1).to(sparse.dtype)], dim=2), dense

    def _positions(self, features: torch.Tensor) -> torch.Tensor:
        """SAM2's positional embedding (1, width, rows, columns) of features, whatever the side of their image was."""
        rows, columns = features.shape[-2:]
        if (rows, columns) == tuple(self.grounding.prompt_encoder.image_embedding_size):
            own: torch.Tensor = self.grounding.get_image_wide_positional_embeddings()
            return own
        embedding = self.grounding.shared_image_embedding
        like = embedding.positional_embedding
        down = (torch.arange(rows, device=like.device, dtype=like.dtype) + 0.5) / rows
        across = (torch.arange(columns, device=like.device, dtype=like.dtype) + 0.5) / columns
        y, x = torch.meshgrid(down, across, indexing="ij")
        places: torch.Tensor = embedding(torch.stack([x, y], dim=-1))
        return places.permute(2, 0, 1)[None]

    def _limit_presence(
        self,
        presence: torch.Tensor,
        features: torch.Tensor,
        prompts: torch.Tensor,
        image_index: torch.Tensor | None,
    ) -> torch.Tensor:
        """Presence logits, limited by the image–target match if the model has one."""
        if not self.config.context_match:
            return presence
        images = self.context.embed_image(features)
        images = images.expand(len(prompts), -1) if image_index is None else images[image_index]
        return product_logit(presence, self.context(images, prompts).to(presence.dtype))

    # ---------------------------------------------------------------- training

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        features: ImageFeatures | None = None,
        image_index: torch.Tensor | None = None,
        grounding_pixels: torch.Tensor | None = None,
        tile_pixels: torch.Tensor | None = None,
        tile_counts: list[int] | None = None,
        seg_prompts: bool = True,
        **kwargs: Any,
    ) -> UniBiomedOutput:
        """Forward pass over complete sequences, for training.

        Parameters
        ----------
        input_ids : torch.Tensor
            Token ids of prompts and answers, (batch, length).
        attention_mask : torch.Tensor, optional
            (batch, length), 1 for tokens and 0 for padding, or a 4-D mask.
        labels : torch.Tensor, optional
            Token ids to predict, -100 elsewhere, not shifted, (batch, length).
        features : ImageFeatures, optional
            Output of :meth:`encode_image`. Otherwise the images are given as ``grounding_pixels`` (and tiles).
        image_index : torch.Tensor, optional
            Index of the image of each row, -1 for rows without an image, (batch,); default: row i has image i.
        seg_prompts : bool
            Whether to decode the masks of the ``[SEG]`` tokens.

        Returns
        -------
        UniBiomedOutput
        """
        if features is None and grounding_pixels is not None:
            features = self.encode_image(grounding_pixels, tile_pixels, tile_counts)
        rows = torch.arange(len(input_ids), device=input_ids.device)
        if image_index is None:
            image_index = rows if features is not None else torch.full_like(rows, -1)
        tokens = [features.tokens[i] for i in image_index.tolist() if i >= 0] if features is not None else None
        hidden = self.mllm.model.language_model(
            inputs_embeds=self.embed(input_ids, tokens),
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=False,
            **kwargs,
        ).last_hidden_state
        out = UniBiomedOutput()
        if labels is not None:
            keep = labels[:, 1:] != -100
            # Only labelled positions are projected to the vocabulary, to save memory.
            logits = self.mllm.lm_head(hidden[:, :-1][keep])
            out.loss = F.cross_entropy(logits.float(), labels[:, 1:][keep])
            out.logits = logits
        else:
            out.logits = self.mllm.lm_head(hidden)
        is_seg = input_ids == self.config.seg_token_id
        if labels is not None:
            is_seg &= labels != -100  # a [SEG] in the question has no mask
        out.seg_rows = is_seg.nonzero()[:, 0]
        if len(out.seg_rows):
            out.seg_states = self.grounding_head(hidden[is_seg])
            if features is not None and seg_prompts:
                assert bool((image_index[out.seg_rows] >= 0).all()), "a [SEG] in a row without an image"
                out.masks = self.decode_masks(features.maps, out.seg_states, image_index[out.seg_rows])
        return out


AutoModel.register(UniBiomedConfig, UniBiomedModel)
