"""Published prompt encoders <-> ours: CLIP and CLAP, of the released CoDi and of `transformers`.

Foreign names are those below the module that holds both towers: `clip.model.` and `clap.model.` in
the released encoders' file, nothing in the folders of a `CLIPModel`, `CLIPTextModelWithProjection`,
`CLIPVisionModelWithProjection`, `ClapModel` or `ClapAudioModelWithProjection`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from codi.config import ConfigError
from codi.convert.rules import POINTWISE, Layout, Rule, Table, below, joined
from codi.encoders.clap import MEL, ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.published import transformers_library

ROWS = Layout(lambda x: x[0], lambda x: x[None])
"""A foreign table of embeddings (1, L, D) that is (L, D) here."""
CHANNELS = Layout(lambda x: x[0, :, 0], lambda x: x[None, :, None])
"""A foreign gain (1, C, 1) that is (C,) here."""

_TEXT_TOWER = ("embeddings", "encoder", "final_layer_norm")
"""What CLIP's text model is made of; some files have its name before these, some do not."""

_COUNTED = "positions are counted"
_TRAINING = "the temperature of contrastive training, which no prompt needs"
_NO_PROJECTION = "this encoder has no projection: its states are the prompt"
_NOT_ADDED = "present in the released weights and never added to anything"
_CLASSES = "the classifier of sounds, which no prompt needs"
_FIXED = "follows from the sizes"
_BLOCKS = "blocks across frames, which start as nothing"
_LAYERS = {
    "temporal.*": "layers across frames, which start as nothing",
    "position": "a table of frames, for layers that start as nothing",
}
_MEAN = "zero until `calibrate` measures it"


def clip_text(config: ClipTextConfig) -> Table:
    """Return the table of CLIP's text tower."""
    rules = [*_text_tower("text_model")]
    unused = {"text_model.embeddings.position_ids": _COUNTED}
    if config.projection:
        rules.append(Rule("to_embedding", "text_projection"))
    else:
        unused["text_projection.weight"] = _NO_PROJECTION
    if config.keeps_unused:
        rules.append(Rule("log_scale", "logit_scale"))
    else:
        unused["logit_scale"] = _TRAINING
    return Table(tuple(rules), unused, _mean(config.unit_context))


def _text_tower(foreign: str) -> tuple[Rule, ...]:
    return below("tower", foreign, [Rule(name, name) for name in _TEXT_TOWER])


def clip_vision(config: ClipVisionConfig) -> Table:
    """Return the table of the released CoDi's vision tower, with its temporal blocks."""
    rules = [Rule("tower", "vision_model"), Rule("to_embedding", "visual_projection")]
    unused = {"vision_model.embeddings.position_ids": _COUNTED}
    if config.temporal_blocks:
        for i in range(config.layers):
            foreign = f"vision_model.encoder.layers.{i}.temporal_self_attn"
            rules += below(f"blocks.{i}", foreign, _temporal_block(config.keeps_unused))
        if not config.keeps_unused:
            unused["*.temporal_self_attn.temporal_attn.pos_embeds"] = _NOT_ADDED
            unused["*.temporal_self_attn.temporal_attn.frame_rate_embeds"] = _NOT_ADDED
    else:
        unused["*.temporal_self_attn.*"] = "this encoder has no temporal blocks"
    return Table(tuple(rules), unused, _LAYERS | _mean(config.unit_context))


def _temporal_block(keeps_unused: bool) -> Iterator[Rule]:
    yield from (
        Rule("norm.gain", "temporal_attn.norm.g"),
        Rule("to_q", "temporal_attn.to_q"),
        Rule("to_kv", "temporal_attn.to_kv"),
        Rule("to_out", "temporal_attn.to_out"),
        Rule("bias.from_distance", "temporal_rel_pos_bias.net.0.0"),
        Rule("bias.hidden", "temporal_rel_pos_bias.net.1.0"),
        Rule("bias.to_heads", "temporal_rel_pos_bias.net.2"),
        Rule("to_hidden", "ff.proj_in.0", POINTWISE),
        Rule("hidden_gain", "ff.proj_out.0.g", CHANNELS),
        Rule("from_hidden", "ff.proj_out.1", POINTWISE),
    )
    if keeps_unused:
        yield Rule("frame_position", "temporal_attn.pos_embeds", ROWS)
        yield Rule("frame_rate", "temporal_attn.frame_rate_embeds", ROWS)


def clip_text_published(config: ClipTextConfig) -> Table:
    """Return the table of plain CLIP's text tower; only a whole CLIP has a temperature."""
    table = clip_text(config)
    return dataclasses.replace(table, fresh={**table.fresh, "log_scale": _TRAINING})


def clip_text_bare(config: ClipTextConfig) -> Table:
    """Return the table of a `CLIPTextModel` as `transformers` 5 saves it: the tower, unnamed."""
    table = clip_text_published(config)
    unused = {"embeddings.position_ids": _COUNTED}
    return dataclasses.replace(table, rules=_text_tower(""), unused=unused)


def clip_text_config(config: ClipTextConfig) -> dict[str, object]:
    """Return the `config.json` with which `transformers` loads a text model without projection."""
    c = config
    return {
        "architectures": ["CLIPTextModel"],
        "bos_token_id": c.vocabulary - 2,
        "eos_token_id": c.vocabulary - 1,
        "hidden_act": c.activation,
        "hidden_size": c.width,
        "intermediate_size": c.hidden_width or 4 * c.width,
        "max_position_embeddings": c.length,
        "model_type": "clip_text_model",
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "projection_dim": c.context_width,
        "vocab_size": c.vocabulary,
    }


def clip_vision_published(config: ClipVisionConfig) -> Table:
    """Return the table of plain CLIP's vision tower, which knows no clips."""
    table = clip_vision(dataclasses.replace(config, temporal_blocks=False))
    return dataclasses.replace(table, fresh={**table.fresh, "blocks.*": _BLOCKS})


def clap_audio(config: ClapAudioConfig) -> Table:
    """Return the table of the released CoDi's CLAP, in the layout of CLAP's authors."""
    tower = [Rule("", ""), Rule("batch_norm", "bn0")]
    for stage, depth in enumerate(config.depths):
        for layer in range(depth):
            name = f"layers.{stage}.blocks.{layer}"
            tower += below(name, name, _clap_layer())
    rules = [
        *below("tower.audio_encoder", "audio_branch", tower),
        Rule("to_hidden", "audio_projection.0"),
        Rule("to_embedding", "audio_projection.2"),
    ]
    unused = {"audio_branch.layers.*.attn_mask": _FIXED}
    if config.keeps_unused:
        rules += [
            Rule("to_classes", "audio_branch.tscam_conv"),
            Rule("between_classes", "audio_branch.head"),
            Rule("transform.0", "audio_transform.sequential.0"),
            Rule("transform.1", "audio_transform.sequential.3"),
        ]
    else:
        unused["audio_branch.tscam_conv.*"] = unused["audio_branch.head.*"] = _CLASSES
        unused["audio_transform.*"] = "a transform of embeddings that the released CoDi never calls"
    fresh = {"*.relative_position_index": _FIXED} | _mean(config.unit_context)
    return Table(tuple(rules), unused, fresh)


def _clap_layer() -> Iterator[Rule]:
    names = [f"attention.self.{name}" for name in ("query", "key", "value")]
    yield from joined(names, "attn.qkv")
    for name in ("relative_position_bias_table", "relative_position_index"):
        yield Rule(f"attention.self.{name}", f"attn.{name}")
    yield from (
        Rule("attention.output.dense", "attn.proj"),
        Rule("layernorm_before", "norm1"),
        Rule("layernorm_after", "norm2"),
        Rule("intermediate.dense", "mlp.fc1"),
        Rule("output.dense", "mlp.fc2"),
    )


def clap_audio_published(config: ClapAudioConfig) -> Table:
    """Return the table of CLAP in the layout of `transformers`."""
    rules = (
        Rule("tower", "audio_model"),
        Rule("to_hidden", "audio_projection.linear1"),
        Rule("to_embedding", "audio_projection.linear2"),
    )
    text = "a prompt's text is read by CLIP"
    unused = {"text_model.*": text, "text_projection.*": text, "logit_scale_?": _TRAINING}
    fresh = {
        "*.relative_position_index": _FIXED,
        "to_classes.*": _CLASSES,
        "between_classes.*": _CLASSES,
        "transform.*": "never called",
    }
    return Table(rules, unused, fresh | _mean(config.unit_context))


def clap_audio_config(config: ClapAudioConfig) -> dict[str, object]:
    """Return the `config.json` with which `transformers` loads what that table writes."""
    c = config
    return {
        "architectures": ["ClapAudioModelWithProjection"],
        "depths": list(c.depths),
        "enable_fusion": False,
        "hidden_size": c.width,
        "model_type": "clap_audio_model",
        "num_attention_heads": list(c.heads),
        "num_hidden_layers": len(c.depths),
        "num_mel_bins": c.mel.bins,
        "patch_embeds_hidden_size": c.channels,
        "patch_size": c.patch,
        "patch_stride": [c.patch, c.patch],
        "projection_dim": c.context_width,
        "spec_size": c.picture,
        "window_size": c.window,
    }


def clip_model(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a model that is a published CLIP alone, or one of its towers.

    Its context is as wide as CLIP's own embeddings, so that they need no training to be compared.

    Args:
        about: the `config.json` of a `CLIPModel` or of one of its towers with a projection.

    Raises:
        ConfigError: no `transformers`, or a damaged configuration.
    """
    library = transformers_library()
    towers = {"text": library.CLIPTextConfig, "vision": library.CLIPVisionConfig}
    if "text_config" in about or "vision_config" in about:
        whole = _published(library.CLIPConfig, about)
        found = {name: getattr(whole, f"{name}_config") for name in towers}
        width = whole.projection_dim
    else:
        name = "text" if "vocab_size" in about or "text" in _type_of(about) else "vision"
        found = {name: _published(towers[name], about)}
        width = found[name].projection_dim
    modalities: dict[str, Any] = {}
    encoders: dict[str, Any] = {}
    for name, tower in found.items():
        encoders[name] = {
            "context_width": width,
            "width": tower.hidden_size,
            "hidden_width": tower.intermediate_size,
            "heads": tower.num_attention_heads,
            "layers": tower.num_hidden_layers,
            "activation": tower.hidden_act,
        }
    if "text" in found:
        text = found["text"]
        sizes = {"vocabulary": text.vocab_size, "length": text.max_position_embeddings}
        encoders["text"] |= {"kind": "clip_text", **sizes}
        modalities["text"] = {"latent": [], "encoder": "text", "media": {}}
    if "vision" in found:
        vision = found["vision"]
        sizes = {"size_px": vision.image_size, "patch": vision.patch_size}
        encoders["vision"] |= {"kind": "clip_vision", **sizes}
        media = {"size_px": vision.image_size}
        modalities["image"] = {"latent": [], "encoder": "vision", "media": media}
    return {"name": "clip", "modalities": modalities, "encoders": encoders}


def clip_contradiction(
    config: ClipTextConfig | ClipVisionConfig, about: Mapping[str, Any]
) -> str | None:
    """Return what `config.json` says of a tower of CLIP otherwise, where shapes do not show it."""
    tower = "text_config" if isinstance(config, ClipTextConfig) else "vision_config"
    said = about.get(tower, about).get("hidden_act", "quick_gelu")
    if said == config.activation:
        return None
    return f"computes with {said!r}, and this model with {config.activation!r}; set its activation"


def _type_of(about: Mapping[str, Any]) -> str:
    return str(about.get("model_type", ""))


def _published(kind: Any, about: Mapping[str, Any]) -> Any:
    """Return the library's configuration, which knows what a file leaves out.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return kind.from_dict(dict(about))
    except Exception as error:  # those of two libraries
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"is damaged ({reason}); fetch it again") from error


def clap_model(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table of a model that is a published CLAP alone: its encoder of sounds.

    It hears what CLAP heard in training, 10 s at 48 kHz, and its context is as wide as CLAP's own
    embeddings, so that they need no training to be compared.

    Args:
        about: the `config.json` of a `ClapModel` or a `ClapAudioModelWithProjection`.

    Raises:
        ConfigError: no `transformers`, a damaged configuration, or one of a CLAP with fusion, which
            hears sounds otherwise.
    """
    library = transformers_library()
    kind = library.ClapConfig if "audio_config" in about else library.ClapAudioConfig
    published = _published(kind, about)
    audio = getattr(published, "audio_config", published)
    if audio.enable_fusion:
        raise ConfigError(
            "is of a CLAP with fusion (enable_fusion), which the encoder here does not have; take "
            "one without, such as laion/clap-htsat-unfused"
        )
    heard = {"sample_rate_hz": MEL.sample_rate_hz, "duration_s": 10.0}
    encoder = {
        "kind": "clap_audio",
        "context_width": published.projection_dim,
        "channels": audio.patch_embeds_hidden_size,
        "depths": list(audio.depths),
        "heads": list(audio.num_attention_heads),
        "window": audio.window_size,
        "patch": audio.patch_size,
        "picture": audio.spec_size,
    }
    return {
        "name": "clap",
        "modalities": {"audio": {"latent": [], "encoder": "audio", "media": heard}},
        "encoders": {"audio": encoder | heard},
    }


def _mean(unit_context: bool) -> dict[str, str]:
    """Return why the mean of the embeddings is fresh, where there is one."""
    return {} if unit_context else {"mean": _MEAN}
