"""What is published beside well-known weights is what the presets compute: none is refused.

The keys and values are facts of the files of Stable Diffusion 1.5, CLIP ViT-L/14, CLAP (HTSAT,
unfused) and AudioLDM, without those that only a loader of the library reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from codi.build import ModelConfig, load_config
from codi.config import build
from codi.convert import configs, encoders
from codi.convert.reading import PREPARATION, Checkpoint
from codi.convert.sampling import (
    SCHEDULER,
    changes_of_sampling,
    sampled_as_told,
    sampling_beside,
    sampling_contradiction,
)
from codi.encoders.clap import ClapAudioConfig
from codi.encoders.clip import ClipTextConfig, ClipVisionConfig

UNET = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
UNET_TODAY = UNET | {
    "_diffusers_version": "0.30.0",
    "addition_embed_type": None,
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": None,
    "attention_type": "default",
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "projection_class_embeddings_input_dim": None,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": 1,
    "upcast_attention": None,
    "use_linear_projection": False,
}
"""As a later version of the library saves the same, with all of its keys."""

VAE = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
VAE_TODAY = VAE | {
    "force_upcast": True,
    "latents_mean": None,
    "latents_std": None,
    "mid_block_add_attention": True,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "use_post_quant_conv": True,
    "use_quant_conv": True,
}
PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
_CLIP_TOWER = {"dropout": 0.0, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-05}
TEXT = _CLIP_TOWER | {
    "bos_token_id": 0,
    "eos_token_id": 2,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "vocab_size": 49408,
}
VISION = _CLIP_TOWER | {
    "hidden_size": 1024,
    "image_size": 224,
    "intermediate_size": 4096,
    "model_type": "clip_vision_model",
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "projection_dim": 768,
}
CLIP = {
    "architectures": ["CLIPModel"],
    "logit_scale_init_value": 2.6592,
    "model_type": "clip",
    "projection_dim": 768,
    "text_config": TEXT,
    "vision_config": VISION,
}
PICTURES = {
    "crop_size": 224,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 224,
}
PICTURES_TODAY = PICTURES | {
    "crop_size": {"height": 224, "width": 224},
    "do_convert_rgb": True,
    "do_rescale": True,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}
CLAP = {
    "architectures": ["ClapModel"],
    "audio_config": {
        "depths": [2, 2, 6, 2],
        "enable_fusion": False,
        "enable_patch_layer_norm": True,
        "flatten_patch_embeds": True,
        "hidden_act": "gelu",
        "hidden_size": 768,
        "layer_norm_eps": 1e-05,
        "mlp_ratio": 4.0,
        "model_type": "clap_audio_model",
        "num_attention_heads": [4, 8, 16, 32],
        "num_hidden_layers": 4,
        "num_mel_bins": 64,
        "patch_embeds_hidden_size": 96,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "projection_dim": 512,
        "projection_hidden_act": "relu",
        "qkv_bias": True,
        "spec_size": 256,
        "window_size": 8,
    },
    "model_type": "clap",
    "projection_dim": 512,
    "projection_hidden_act": "relu",
    "text_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "model_type": "clap_text_model"},
}
SOUNDS = {
    "chunk_length_s": 10,
    "feature_extractor_type": "ClapFeatureExtractor",
    "feature_size": 64,
    "fft_window_size": 1024,
    "frequency_max": 14000,
    "frequency_min": 50,
    "hop_length": 480,
    "sampling_rate": 48000,
    "top_db": None,
}
SOUND_VAE = VAE | {
    "block_out_channels": [128, 256, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 3,
    "in_channels": 1,
    "latent_channels": 8,
    "out_channels": 1,
    "scaling_factor": 0.9227914214134216,
    "up_block_types": ["UpDecoderBlock2D"] * 3,
}
VOCODER = {
    "architectures": ["SpeechT5HifiGan"],
    "leaky_relu_slope": 0.1,
    "model_in_dim": 64,
    "model_type": "hifigan",
    "normalize_before": False,
    "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    "resblock_kernel_sizes": [3, 7, 11],
    "sampling_rate": 16000,
    "upsample_initial_channel": 1024,
    "upsample_kernel_sizes": [16, 16, 8, 4, 4],
    "upsample_rates": [5, 4, 2, 2, 2],
}

_SD, _RELEASE = "stable-diffusion", "release"
AGREEING: list[tuple[str, str, configs.Description, Mapping[str, Any]]] = [
    (_SD, "diffusers.vision", configs.UNET, UNET),
    (_SD, "diffusers.vision", configs.UNET, UNET_TODAY),
    (_SD, "codecs.image", configs.AUTOENCODER, VAE),
    (_SD, "codecs.image", configs.AUTOENCODER, VAE_TODAY),
    (_RELEASE, "codecs.audio", configs.AUTOENCODER.inside("autoencoder"), SOUND_VAE),
    (_RELEASE, "codecs.audio", configs.VOCODER, VOCODER),
]
AGREEING_OF_TRANSFORMERS: list[tuple[str, str, configs.Description, Mapping[str, Any]]] = [
    (_SD, "encoders.text", encoders.CLIP_TEXT, TEXT),
    (_RELEASE, "encoders.text", encoders.CLIP, CLIP | {PREPARATION: PICTURES}),
    (_RELEASE, "encoders.vision", encoders.CLIP, CLIP | {PREPARATION: PICTURES}),
    (_RELEASE, "encoders.vision", encoders.CLIP, CLIP | {PREPARATION: PICTURES_TODAY}),
    (_RELEASE, "encoders.vision", encoders.CLIP, CLIP | {"processor_config": PICTURES_TODAY}),
]


def _agree(preset: str, part: str, asked: configs.Description, about: Mapping[str, Any]) -> None:
    config = load_config(preset).part(*part.split(".", 1))
    asked.refusal(about)
    assert asked.settings(config, about) == {}
    assert asked.contradiction(config, about) is None


@pytest.mark.parametrize(("preset", "part", "asked", "about"), AGREEING)
def test_what_is_published_is_what_the_presets_compute(
    preset: str, part: str, asked: configs.Description, about: Mapping[str, Any]
) -> None:
    _agree(preset, part, asked, about)


@pytest.mark.parametrize(("preset", "part", "asked", "about"), AGREEING_OF_TRANSFORMERS)
def test_what_is_published_of_clip_is_what_the_presets_compute(
    preset: str, part: str, asked: configs.Description, about: Mapping[str, Any]
) -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    _agree(preset, part, asked, about)


@pytest.mark.parametrize("unet", [UNET, UNET_TODAY], ids=["old", "today"])
def test_stable_diffusions_scheduler_is_the_presets(unet: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / SCHEDULER).parent.mkdir()
    (tmp_path / SCHEDULER).write_text(json.dumps(PNDM))
    model, part = load_config(_SD), "diffusers.vision"
    told = sampling_beside(Checkpoint(tmp_path / "unet" / "x.safetensors", {}, unet))
    assert len(told) == 2
    for _path, about in told:
        assert list(changes_of_sampling(model, sampled_as_told(model, part, about))) == []
        assert sampling_contradiction(model, part, about) is None


@pytest.mark.parametrize("pictures", [PICTURES, PICTURES_TODAY], ids=["old", "today"])
def test_a_published_clip_alone_is_a_model_that_agrees_with_it(pictures: dict[str, Any]) -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    about = CLIP | {PREPARATION: pictures}
    model = build(ModelConfig, encoders.clip_model(about), "clip")
    text, vision = (model.part("encoders", name) for name in ("text", "vision"))
    assert isinstance(text, ClipTextConfig)
    assert isinstance(vision, ClipVisionConfig)
    assert encoders.clip_contradiction(text, about) is None
    assert encoders.clip_contradiction(vision, about) is None
    assert (vision.size_px, vision.patch, vision.layers) == (224, 14, 24)


def test_a_published_clap_alone_is_a_model_that_agrees_with_it() -> None:
    pytest.importorskip("transformers", reason="needs codi[external]")
    about = CLAP | {PREPARATION: SOUNDS}
    config = build(ModelConfig, encoders.clap_model(about), "clap").part("encoders", "audio")
    assert isinstance(config, ClapAudioConfig)
    assert encoders.clap_contradiction(config, about) is None
    assert (config.channels, config.depths) == (96, (2, 2, 6, 2))
