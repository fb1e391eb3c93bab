"""CLIP as prompt encoders of text, images and clips (CoDi, section 3.2; Radford et al., 2021).

The paper begins with CLIP and aligns audio and video to it. These are adapters around the towers of
the `transformers` library: sizes are fields, so that they can be built with random weights without
a network, and `pretrained` names published weights. They know no diffuser and no training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from codi.config import ConfigError
from codi.encoders.base import PromptEncoder
from codi.encoders.clip_temporal import ClipTemporalBlock
from codi.encoders.published import (
    builds_shapes_only,
    load_published,
    load_published_tokenizer,
    transformers_library,
)
from codi.hub import may_be_of_hub
from codi.nn.attention import TransformerLayer
from codi.nn.conv import zeroed
from codi.tokenizer import cut_lines
from codi.types import Shares

PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""What OpenAI's CLIP's pictures with values in [0, 1] are centred and scaled by."""


@dataclass(frozen=True)
class ClipTextConfig:
    """Shape of CLIP's text tower; the defaults are ViT-L/14's.

    Attributes:
        tokenizer: folder or hub name of CLIP's tokenizer files; that of `pretrained` by default.
            They are read when the first sentence is encoded.
        hidden_width: of the feed-forward layers; four times `width` when 0.
        unit_context: whether the context is the embedding as it is, as in the released CoDi.
        sequence: whether the context is the states of all `length` tokens after the last norm, as
            Stable Diffusion 1 is conditioned (Rombach et al. 2022, section 3.3), and not the one
            embedding. No prompt is then the empty sentence, padded as any other.
        projection: whether there is the projection into the space of prompts, which embeddings are
            made with. The text model in Stable Diffusion 1 has none: no embedding, no alignment.
        keeps_unused: whether the temperature of CLIP's own training is held, which no prompt needs,
            so that counts and exports are those of the released CoDi.
        activation: of the feed-forward layers: OpenAI's, or the exact one of many later CLIPs.
        pretrained: folder or hub name of published weights; random weights when empty.
    """

    shares: ClassVar[Shares] = {
        "tower": ("tower.*",),
        "projection": ("to_embedding.*",),
        "temperature": ("log_scale",),
    }
    counted_with: ClassVar[str] = "CLIP"

    context_width: int = 768
    vocabulary: int = 49_408
    length: int = 77
    width: int = 768
    heads: int = 12
    layers: int = 12
    hidden_width: int = 0
    unit_context: bool = False
    sequence: bool = False
    projection: bool = True
    keeps_unused: bool = False
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    tokenizer: str = ""
    pretrained: str = ""

    def __post_init__(self) -> None:
        """Check that there is a context, and that it has the width it is said to have.

        Raises:
            ValueError: switches that contradict each other.
        """
        if not self.projection and not self.sequence:
            raise ValueError(
                "without its projection the context is a sequence; set sequence = true"
            )
        if self.sequence and not self.unit_context:
            raise ValueError("a sequence is never centred; set unit_context = true with sequence")
        if self.sequence and self.width != self.context_width:
            raise ValueError(
                f"a sequence of states is as wide as the tower, {self.width}, and context_width is "
                f"{self.context_width}; make them equal"
            )

    @property
    def context_tokens(self) -> int:
        """Return L of the context."""
        return self.length if self.sequence else 1

    def build(self) -> ClipText:
        """Return the encoder.

        Raises:
            ConfigError: `transformers` or the published weights are missing.
        """
        return ClipText(self)


@dataclass(frozen=True)
class ClipVisionConfig:
    """Shape of CLIP's vision tower; the defaults are ViT-L/14's.

    Attributes:
        size_px: side of the pictures the tower takes; others are resized.
        temporal_layers: transformer layers that look across the frames of a clip, which start as
            nothing: an untrained video encoder is the mean over frames. An image has none.
        temporal_blocks: whether every layer of the tower looks across the frames of a clip, as in
            the released CoDi: between its attention and its feed-forward. The mean over frames is
            then taken of the last states.
        frames: most frames of a clip; with `temporal_blocks`, length of tables that are not used.
        hidden_width: of the feed-forward layers; four times `width` when 0.
        unit_context: whether the context is the embedding as it is, as in the released CoDi.
        keeps_unused: whether those tables are held, which the released weights contain and no
            prompt needs, so that counts and exports are those of the released CoDi.
        activation: of the feed-forward layers: OpenAI's, or the exact one of many later CLIPs.
        pixel_mean, pixel_deviation: what pictures with values in [0, 1] are centred and scaled by,
            for each colour: OpenAI's; some later CLIPs have 0.5.
        pretrained: folder or hub name of published weights; random weights when empty.
    """

    shares: ClassVar[Shares] = {
        "tower": ("tower.*", "blocks.*", "temporal.*", "position"),
        "tower/temporal blocks": ("blocks.*", "temporal.*", "position"),
        "projection": ("to_embedding.*",),
    }
    counted_with: ClassVar[str] = "CLIP"

    context_width: int = 768
    size_px: int = 224
    patch: int = 14
    width: int = 1024
    heads: int = 16
    layers: int = 24
    temporal_layers: int = 0
    temporal_blocks: bool = False
    frames: int = 16
    hidden_width: int = 0
    unit_context: bool = False
    keeps_unused: bool = False
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    pixel_mean: tuple[float, float, float] = PIXEL_MEAN
    pixel_deviation: tuple[float, float, float] = PIXEL_DEVIATION
    pretrained: str = ""

    def __post_init__(self) -> None:
        """Check that there is one way to see a clip, and that pictures can be scaled.

        Raises:
            ValueError: two of them, or a deviation that is not above 0.
        """
        if not min(self.pixel_deviation) > 0.0:
            raise ValueError(
                f"pixel_deviation = {self.pixel_deviation}, and pictures are divided by it; "
                "give three numbers above 0"
            )
        if self.temporal_layers and self.temporal_blocks:
            raise ValueError("temporal_layers and temporal_blocks exclude each other; set one")

    def build(self) -> ClipVision:
        """Return the encoder.

        Raises:
            ConfigError: `transformers` or the published weights are missing.
        """
        return ClipVision(self)


class ClipText(PromptEncoder):
    """Embed B sentences: the state at the end of the text, projected.

    The context is that embedding, or, with `sequence`, the states of all tokens.
    """

    def __init__(self, config: ClipTextConfig) -> None:
        super().__init__(config.width, config.context_width, config.unit_context)
        c = self.config = config
        sizes = {
            "vocab_size": c.vocabulary,
            "max_position_embeddings": c.length,
            "hidden_size": c.width,
            "intermediate_size": c.hidden_width or 4 * c.width,
            "num_attention_heads": c.heads,
            "num_hidden_layers": c.layers,
            "projection_dim": c.context_width,
            "hidden_act": c.activation,
        }
        # The end of the text is the last entry of CLIP's vocabulary.
        ends = {"bos_token_id": c.vocabulary - 2, "eos_token_id": c.vocabulary - 1}
        whole = _whole("CLIPTextModelWithProjection", "CLIPTextConfig", c.pretrained, sizes, ends)
        self.tower: Any = whole.text_model
        if c.projection:
            self.to_embedding = whole.text_projection
        else:
            del self.to_embedding
        if c.keeps_unused:
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    @cached_property
    def tokenizer(self) -> Any:
        """Return CLIP's tokenizer.

        Raises:
            ConfigError: no files, or the files of another vocabulary.
        """
        c = self.config
        source = c.tokenizer or c.pretrained
        if not source:
            raise ConfigError(
                "a clip_text encoder reads sentences with CLIP's own tokenizer; set `tokenizer` to "
                "a folder with its vocab.json and merges.txt, or `pretrained`"
            )
        if not Path(source).exists() and not may_be_of_hub(source):
            raise ConfigError(
                f"{source}: there is no tokenizer; put CLIP's vocab.json and merges.txt (of "
                "openai/clip-vit-large-patch14) there"
            )
        tokenizer = load_published_tokenizer("CLIPTokenizer", source)
        if tokenizer.eos_token_id != c.vocabulary - 1:
            raise ConfigError(
                f"the tokenizer of {source!r} ends a text with token {tokenizer.eos_token_id}, and "
                f"a vocabulary of {c.vocabulary} with {c.vocabulary - 1}; give CLIP's own files"
            )
        return tokenizer

    def forward(self, x: Sequence[str]) -> Tensor:
        """Return the context (B, L, D) of B sentences: L = 1, or `length` with `sequence`."""
        return self.states(self.tokens(x)) if self.config.sequence else super().forward(x)

    def features(self, x: Sequence[str]) -> Tensor:
        """Return the features (B, D') of B sentences, cut to `length` tokens."""
        return self.read(self.tokens(x))

    def project(self, features: Tensor) -> Tensor:
        """Return the embedding (B, D) of features (B, D').

        Raises:
            ConfigError: there is no projection, so that a text can prompt and not be compared.
        """
        if not self.config.projection:
            raise ConfigError(
                "this clip_text encoder has projection = false, as Stable Diffusion's: it prompts "
                "and has no embedding to align or compare; take openai/clip-vit-large-patch14, "
                "which has one"
            )
        return super().project(features)

    def tokens(self, x: Sequence[str]) -> Tensor:
        """Return the tokens (B, L) of B sentences, ended and padded, to `length` in a sequence."""
        encoded = self.tokenizer(
            list(x),
            padding="max_length" if self.config.sequence else True,
            truncation=True,
            max_length=self.config.length,
            return_tensors="pt",
        )
        return encoded["input_ids"]

    def unread(self, x: Sequence[str]) -> list[str]:
        """Return a line for each sentence that is longer than what is read."""
        return cut_lines(
            x,
            self.config.length - 2,
            lambda text: self.tokenizer(text, add_special_tokens=False)["input_ids"],
            self.tokenizer.decode,
        )

    def read(self, tokens: Tensor) -> Tensor:
        """Return the features (B, D') of tokens (B, L): the state at the end of the text."""
        # Read at the end of the text by a causal tower, padding needs no mask. The end is the first
        # of the largest tokens.
        states = self.states(tokens)
        ends = tokens.argmax(-1).to(states.device)
        return states[torch.arange(len(tokens), device=states.device), ends]

    def states(self, tokens: Tensor) -> Tensor:
        """Return the states (B, L, D') of tokens (B, L) after the last norm, padding included."""
        return self.tower(input_ids=tokens.to(self.mean.device)).last_hidden_state


class ClipVision(PromptEncoder):
    """Embed pictures (F = 1) or clips (B, C, F, H, W) with values in [-1, 1]."""

    pixel_mean: Tensor
    pixel_deviation: Tensor

    def __init__(self, config: ClipVisionConfig) -> None:
        super().__init__(config.width, config.context_width, config.unit_context)
        c = self.config = config
        sizes = {
            "image_size": c.size_px,
            "patch_size": c.patch,
            "hidden_size": c.width,
            "intermediate_size": c.hidden_width or 4 * c.width,
            "num_attention_heads": c.heads,
            "num_hidden_layers": c.layers,
            "projection_dim": c.context_width,
            "hidden_act": c.activation,
        }
        whole = _whole("CLIPVisionModelWithProjection", "CLIPVisionConfig", c.pretrained, sizes, {})
        self.tower: Any = whole.vision_model
        self.to_embedding = whole.visual_projection
        for name in ("pixel_mean", "pixel_deviation"):
            column = torch.tensor(getattr(c, name))[:, None, None]
            self.register_buffer(name, column, persistent=False)
        self.temporal = nn.ModuleList(_silent(c.width, c.heads) for _ in range(c.temporal_layers))
        if c.temporal_blocks:
            tables = c.frames if c.keeps_unused else 0
            self.blocks = nn.ModuleList(
                ClipTemporalBlock(c.width, c.heads, tables) for _ in range(c.layers)
            )
        if c.temporal_layers:
            self.position = nn.Parameter(torch.randn(c.frames, c.width) * 0.02)

    def features(self, x: Tensor) -> Tensor:
        """Return the features (B, D') of pictures or clips (B, C, F, H, W)."""
        return self.look(self.pictures(x.transpose(1, 2).flatten(0, 1)), x.shape[2])

    def look(self, pictures: Tensor, frames: int, clips: bool | None = None) -> Tensor:
        """Return the features (B, D') of prepared pictures (B * F, C, H, W) and F = `frames`.

        `clips` says whether they are frames of clips, to which temporal blocks add something, to
        one frame alone, too. The released CoDi's `encode_vision` takes a clip of one frame for a
        picture, as is done here unless it is said; its tower, given five axes, does not.
        """
        if self.config.temporal_blocks and (frames > 1 if clips is None else clips):
            return self._look_across(pictures, frames)
        sequence = self.tower(pixel_values=pictures).pooler_output.unflatten(0, (-1, frames))
        if self.temporal:
            if frames > self.config.frames:
                raise ConfigError(
                    f"a clip of {frames} frames; this encoder looks across {self.config.frames} "
                    "(its `frames`)"
                )
            moved = sequence + self.position[:frames]
            for layer in self.temporal:
                moved = layer(moved)
            sequence = moved - self.position[:frames]  # untrained layers change nothing
        return sequence.mean(1)

    def _look_across(self, pictures: Tensor, frames: int) -> Tensor:
        """Return the features (B, D') of clips, with a temporal block in every layer."""
        tower = self.tower
        states = tower.pre_layrnorm(tower.embeddings(pictures))  # (B * F, L, C)
        for layer, block in zip(tower.encoder.layers, self.blocks, strict=True):
            attended = layer.self_attn(layer.layer_norm1(states), attention_mask=None)
            states = states + attended[0]
            states = block(states.unflatten(0, (-1, frames))).flatten(0, 1)
            states = states + layer.mlp(layer.layer_norm2(states))
        # The mean over frames comes before the norm, and the norm is not linear.
        return tower.post_layernorm(states[:, 0].unflatten(0, (-1, frames)).mean(1))

    def pictures(self, x: Tensor) -> Tensor:
        """Return pictures (N, C, H, W) in [-1, 1] as the tower takes them: resized, centred.

        The released CoDi crops and mirrors a picture at random before; here the same picture is
        always the same prompt.
        """
        size = (self.config.size_px, self.config.size_px)
        unit = (x.float() + 1.0) / 2.0
        if x.shape[-2:] != size:
            unit = interpolate(unit, size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        return ((unit - self.pixel_mean) / self.pixel_deviation).to(self.mean.dtype)


def _whole(
    class_name: str, config_name: str, pretrained: str, sizes: dict[str, Any], ends: dict[str, int]
) -> Any:
    """Return the library's tower and projection, published or with random weights."""
    if pretrained and not builds_shapes_only():
        return load_published(class_name, pretrained, sizes)
    library = transformers_library()
    return getattr(library, class_name)(getattr(library, config_name)(**sizes, **ends))


def _silent(width: int, heads: int) -> TransformerLayer:
    """Return a transformer layer whose residual branches start as nothing."""
    layer = TransformerLayer(width, heads)
    zeroed(layer.attention.to_out)
    zeroed(layer.feed_forward.to_out)
    return layer
