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
from codi.convert.configs import Description, difference, require_fixed, same
from codi.convert.reading import PREPARATION, PREPARATIONS
from codi.convert.rules import POINTWISE, Layout, Rule, Table, below, joined
from codi.encoders.clap import MEL, ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig
from codi.encoders.published import transformers_library

ROWS = Layout(lambda x: x[0], lambda x: x[None])
"""A foreign table of embeddings (1, L, D) that is (L, D) here."""
CHANNELS = Layout(lambda x: x[0, :, 0], lambda x: x[None, :, None])
"""A foreign gain (1, C, 1) that is (C,) here."""

TOKENS = "embeddings.token_embedding.weight"
"""The table of words in CLIP's text model, below its name where it has one."""
_TEXT_TOWER = ("embeddings", "encoder", "final_layer_norm")
"""What CLIP's text model is made of; some files have its name before these, some do not."""

_CLIP_TOWER = (
    ("projection_dim", "context_width"),
    ("hidden_size", "width"),
    ("intermediate_size", "hidden_width"),
    ("num_hidden_layers", "layers"),
)
_UNSEEN = (("num_attention_heads", "heads"), ("hidden_act", "activation"))
_CLIP_SIZES = {
    "text": (
        *_CLIP_TOWER,
        *_UNSEEN,
        ("vocab_size", "vocabulary"),
        ("max_position_embeddings", "length"),
    ),
    "vision": (*_CLIP_TOWER, *_UNSEEN, ("image_size", "size_px"), ("patch_size", "patch")),
}
"""Tower -> the library's names of its numbers and ours; of `_UNSEEN`, no shape depends."""
_PREPARED = (("image_mean", "pixel_mean"), ("image_std", "pixel_deviation"))
"""How pictures are prepared, by the library's names and ours."""

_HEARD = (
    ("sampling_rate", "sample_rate_hz"),
    ("fft_window_size", "window"),
    ("hop_length", "hop"),
    ("feature_size", "bins"),
    ("frequency_min", "low_hz"),
    ("frequency_max", "high_hz"),
)
"""How sounds are prepared for CLAP, by the library's names and ours."""
_CLAP_FIXED = (
    "enable_patch_layer_norm",
    "flatten_patch_embeds",
    "hidden_act",
    "layer_norm_eps",
    "projection_hidden_act",
    "qkv_bias",
)
"""What CLAP's encoder of sounds computes as the library does by default."""
_ANOTHER_CLAP = "take another CLAP, such as laion/clap-htsat-unfused"
_BICUBIC = 3
"""How pictures are resampled, by the library's number of it."""
_THEIRS = {
    ours: theirs for pairs in (*_CLIP_SIZES.values(), _PREPARED, _HEARD) for theirs, ours in pairs
}
"""Our settings -> the library's names for them."""

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

_TOWERS = ("text_config", "vision_config", "audio_config")
"""Keys of the towers in the `config.json` of a whole CLIP or CLAP."""


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


def clip_text_config(config: ClipTextConfig) -> dict[str, Any]:
    """Return the `config.json` with which `transformers` loads a text model without projection."""
    return {"architectures": ["CLIPTextModel"], **_clip_tower(config)}


def clip_config(config: ClipTextConfig | ClipVisionConfig) -> dict[str, Any]:
    """Return what a tower adds to the `config.json` with which `transformers` loads a `CLIPModel`.

    Of the vision tower, it has also how pictures are prepared, as `PREPARATION`.
    """
    name = "text" if isinstance(config, ClipTextConfig) else "vision"
    width = config.context_width
    about = {"model_type": "clip", "projection_dim": width, f"{name}_config": _clip_tower(config)}
    if isinstance(config, ClipVisionConfig):
        side = config.size_px
        about[PREPARATION] = {
            "image_processor_type": "CLIPImageProcessor",
            "crop_size": {"height": side, "width": side},
            "size": {"shortest_edge": side},
            **{theirs: list(getattr(config, ours)) for theirs, ours in _PREPARED},
        }
    return about


def _clip_tower(config: ClipTextConfig | ClipVisionConfig) -> dict[str, Any]:
    """Return the configuration of a tower, as `transformers` has it."""
    name = "text" if isinstance(config, ClipTextConfig) else "vision"
    sizes = {theirs: getattr(config, ours) for theirs, ours in _CLIP_SIZES[name]}
    sizes["intermediate_size"] = config.hidden_width or 4 * config.width
    if isinstance(config, ClipTextConfig):
        end = config.vocabulary - 1
        sizes |= {"bos_token_id": end - 1, "eos_token_id": end}
    return {"model_type": f"clip_{name}_model", **sizes}


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
    found = _clip_towers(about)
    modalities: dict[str, Any] = {}
    encoders: dict[str, Any] = {}
    for name, tower in found.items():
        _require_norms(name, tower)
        encoders[name] = {"kind": f"clip_{name}"}
        for theirs, ours in _CLIP_SIZES[name]:
            encoders[name][ours] = getattr(tower, theirs)
    if "text" in found:
        modalities["text"] = {"latent": [], "encoder": "text", "media": {}}
    if "vision" in found:
        _require_crop(found["vision"].image_size, about)
        encoders["vision"] |= _prepared(_preparation(about)[1])
        media = {"size_px": found["vision"].image_size}
        modalities["image"] = {"latent": [], "encoder": "vision", "media": media}
    return {"name": "clip", "modalities": modalities, "encoders": encoders}


def _clip_towers(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the library's configuration of each tower that `config.json` tells of, by our names.

    Each has the width of the whole CLIP's embeddings as its `projection_dim`.

    Raises:
        ConfigError: no `transformers`, or a damaged configuration.
    """
    library = transformers_library()
    kinds = {"text": library.CLIPTextConfig, "vision": library.CLIPVisionConfig}
    nested = [name for name in kinds if f"{name}_config" in about]
    if not nested:
        name = "text" if "vocab_size" in about or "text" in _type_of(about) else "vision"
        return {name: _published(kinds[name], about)}
    whole = _published(library.CLIPConfig, about)
    found = {name: getattr(whole, f"{name}_config") for name in nested}
    for tower in found.values():
        tower.projection_dim = whole.projection_dim
    return found


def _require_norms(name: str, tower: Any) -> None:
    """Check that a tower's norms compute as ours, which have the library's default.

    Raises:
        ConfigError: they add another number to the variance.
    """
    key = "layer_norm_eps"
    require_fixed(
        {key: tower.layer_norm_eps},
        {key: (getattr(type(tower)(), key),)},
        f"the {name} tower",
        mend="take weights that were trained with that, as OpenAI's",
    )


def _require_last_token(config: ClipTextConfig, tower: Any) -> None:
    """Check that a text is read at the token that ends it here: the last of the vocabulary.

    Raises:
        ConfigError: at another one; 2 stands for the same in old files.
    """
    end = config.vocabulary - 1
    if tower.eos_token_id not in (2, end):
        raise ConfigError(
            f"has eos_token_id = {tower.eos_token_id}, and the encoder here reads a text at token "
            f"{end}, the last of its vocabulary; take weights that are read there, as OpenAI's"
        )


def _preparation(about: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the file that tells how pictures or sounds are prepared, and what it says, if any."""
    for name in PREPARATIONS:
        if name in about:
            return f"{name}.json", about[name]
    return "", {}


def _prepared(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what pictures are centred and scaled by, by our names, as far as it is told."""
    found = {ours: told.get(theirs) for theirs, ours in _PREPARED}
    # One number is that of all three colours.
    return {
        ours: [value] * 3 if isinstance(value, int | float) else value
        for ours, value in found.items()
        if value is not None
    }


def _require_crop(side: int, about: Mapping[str, Any]) -> None:
    """Check that pictures are prepared as ours are: shorter edge to `side`, middle cut out.

    Raises:
        ConfigError: they are scaled to another size or otherwise, squashed, or not cut.
    """
    file, told = _preparation(about)
    if isinstance(told.get("size"), list):  # height and width, to which pictures are squashed
        told = {**told, "size": dict(zip(("height", "width"), told["size"], strict=False))}
    fixed = {
        "do_resize": (True,),
        "size": (side, {"shortest_edge": side}),
        "resample": (_BICUBIC,),
        "do_center_crop": (True,),
        "crop_size": (side, {"height": side, "width": side}),
        "do_rescale": (True,),
        "do_normalize": (True,),
    }
    what = f"the encoder, which scales the shorter edge to {side} and cuts out the middle,"
    mend = "take weights that want this, or remove the key there if the difference is meant"
    require_fixed(told, fixed, what, file, mend)


def clip_contradiction(
    config: ClipTextConfig | ClipVisionConfig, about: Mapping[str, Any]
) -> str | None:
    """Return what `config.json` says of a tower of CLIP otherwise, where shapes do not show it.

    Raises:
        ConfigError: it is damaged, or of a tower that no encoder here computes.
    """
    if not _tells_of("clip", about):
        return None
    name = "text" if isinstance(config, ClipTextConfig) else "vision"
    tower = _clip_towers(about).get(name)
    if tower is None:
        return None
    _require_norms(name, tower)
    if isinstance(config, ClipTextConfig) and not config.sequence:
        _require_last_token(config, tower)
    unseen = {ours: getattr(tower, theirs) for theirs, ours in _UNSEEN}
    said = difference(vars(config), unseen, _THEIRS)
    if said is None and name == "vision":
        _require_crop(tower.image_size, about)
        file, told = _preparation(about)
        return difference(vars(config), _prepared(told), _THEIRS, place=file)
    return said


def clip_text_settings(config: ClipTextConfig, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of CLIP's text tower that `config.json` tells otherwise.

    Those are what no shape shows, and the layers, of which some Stable Diffusions have fewer.

    Raises:
        ConfigError: it is damaged.
    """
    tower = _clip_towers(about).get("text") if _tells_of("clip", about) else None
    if tower is None:
        return {}
    names = (*_UNSEEN, ("num_hidden_layers", "layers"))
    found = {ours: getattr(tower, theirs) for theirs, ours in names}
    return {ours: value for ours, value in found.items() if not same(value, getattr(config, ours))}


def _tells_of(kind: str, about: Mapping[str, Any]) -> bool:
    """Say whether a `config.json` is of CLIP (or CLAP): weights may lie among other files."""
    told = _type_of(about)
    return told.startswith(kind) if told else any(key in about for key in ("hidden_act", *_TOWERS))


def _type_of(about: Mapping[str, Any]) -> str:
    return str(about.get("model_type", ""))


def _published(kind: Any, about: Mapping[str, Any]) -> Any:
    """Return the library's configuration, which knows what a file leaves out.

    Raises:
        ConfigError: it is damaged.
    """
    for key in _TOWERS:
        # The library takes a tower of its default sizes for one that is nothing.
        if about.get(key, key) is None:
            raise ConfigError(f"is damaged ({key} is null); fetch it again")
    try:
        return kind.from_dict({key: v for key, v in about.items() if key not in PREPARATIONS})
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
    audio, width = _clap_tower(about)
    heard = {"sample_rate_hz": MEL.sample_rate_hz, "duration_s": 10.0}
    encoder = {
        "kind": "clap_audio",
        "context_width": width,
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


def _clap_tower(about: Mapping[str, Any]) -> tuple[Any, int]:
    """Return the library's configuration of CLAP's encoder of sounds, and its embeddings' width.

    Raises:
        ConfigError: see `clap_model`.
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
    own = type(audio)()
    fixed = {key: (getattr(own, key),) for key in _CLAP_FIXED}
    fixed["patch_stride"] = (audio.patch_size,)
    told = {key: getattr(audio, key) for key in fixed}
    told["projection_hidden_act"] = published.projection_hidden_act  # of the whole, where it is one
    require_fixed(told, fixed, "the encoder", mend=_ANOTHER_CLAP)
    return audio, published.projection_dim


def clap_contradiction(config: ClapAudioConfig, about: Mapping[str, Any]) -> str | None:
    """Return what `config.json` says of CLAP otherwise, where shapes do not show it.

    Raises:
        ConfigError: it is damaged, or of a CLAP that no encoder here computes.
    """
    if not _tells_of("clap", about):
        return None
    audio, _width = _clap_tower(about)
    file, told = _preparation(about)
    heard = {ours: told[theirs] for theirs, ours in _HEARD if theirs in told}
    return difference(vars(config), {"heads": audio.num_attention_heads}, _THEIRS) or difference(
        vars(config.mel), heard, _THEIRS, place=file
    )


def _mean(unit_context: bool) -> dict[str, str]:
    """Return why the mean of the embeddings is fresh, where there is one."""
    return {} if unit_context else {"mean": _MEAN}


CLIP = Description(contradiction=clip_contradiction)
CLIP_TEXT = Description(settings=clip_text_settings, contradiction=clip_contradiction)
CLAP = Description(contradiction=clap_contradiction)
