"""CLIP and CLAP from folders as the library writes them: its own numbers come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from codi import media
from codi.config import ConfigError
from codi.evaluation.extractors.published import ClapExtractor, ClipExtractor
from tests.small import objects

pytest.importorskip("transformers", reason="needs codi[external]")

WORDS = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "barks", "loudly"]
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    symbols = [*"abdoglurksy", *(f"{c}</w>" for c in "abdoglurksy"), "<|startoftext|>"]
    vocabulary = {symbol: i for i, symbol in enumerate([*symbols, "<|endoftext|>"])}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    last = len(vocabulary) - 1
    text = TEXT | {
        "projection_dim": 12,
        "intermediate_size": 24,
        "vocab_size": last + 1,
        "max_position_embeddings": 32,
    }
    vision = TEXT | {
        "projection_dim": 12,
        "intermediate_size": 24,
        "image_size": 32,
        "patch_size": 16,
    }
    ends = {"bos_token_id": last - 1, "eos_token_id": last}
    CLIPModel(
        CLIPConfig(text_config=text | ends, vision_config=vision, projection_dim=12)
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapConfig, ClapModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clap")
    library = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>")
    )
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=library, unk_token="<unk>", pad_token="<pad>", model_max_length=16
    ).save_pretrained(folder)
    audio = {
        "patch_embeds_hidden_size": 8,
        "hidden_size": 16,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "window_size": 4,
        "spec_size": 128,
        "num_mel_bins": 64,
        "patch_stride": [4, 4],
        "enable_fusion": False,
    }
    text = TEXT | {"intermediate_size": 16, "vocab_size": len(WORDS)}
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(
        folder
    )
    return folder


def whole(class_name: str, folder: Path) -> Any:
    import transformers

    return getattr(transformers, class_name).from_pretrained(folder).eval()


@torch.no_grad()
def test_clip_gives_the_librarys_embeddings(clip_folder: Path) -> None:
    from transformers import CLIPTokenizer

    extractor = ClipExtractor(str(clip_folder))
    sentences = ["a dog", "loudly barks a dog"]
    tokens = CLIPTokenizer.from_pretrained(clip_folder)(
        sentences, padding=True, return_tensors="pt"
    )
    wanted = whole("CLIPModel", clip_folder).get_text_features(**tokens).pooler_output
    found = extractor("text", sentences)["features"]
    np.testing.assert_allclose(found, normalize(wanted).numpy(), atol=1e-5)


def test_clip_sees_every_frame_as_a_picture(clip_folder: Path) -> None:
    from PIL import Image

    extractor = ClipExtractor(str(clip_folder))
    clip = objects()["video"]
    frames = extractor("video", [clip])["features"]
    assert frames.shape == (1, 16, 12)
    alone = extractor("image", [Image.fromarray(frame) for frame in clip.frames])["features"]
    np.testing.assert_allclose(frames[0], alone, atol=1e-5)
    assert len(extractor.identity["sha256"]) == 64
    with pytest.raises(ConfigError, match="not audio"):
        extractor("audio", [])


@torch.no_grad()
def test_clap_gives_the_librarys_embeddings(clap_folder: Path) -> None:
    extractor = ClapExtractor(str(clap_folder))
    model = whole("ClapModel", clap_folder)
    ids = torch.tensor([[4, 5], [5, 6]])
    wanted = model.get_text_features(input_ids=ids, attention_mask=torch.ones_like(ids))
    found = extractor("text", ["a dog", "dog barks"])["features"]
    np.testing.assert_allclose(found, normalize(wanted.pooler_output).numpy(), atol=1e-5)
    sound = media.Audio(0.3 * np.random.default_rng(0).standard_normal(48_000, np.float32), 48_000)
    heard = extractor("audio", [sound, sound])["features"]
    assert heard.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(heard, axis=1), 1.0, rtol=1e-5)
    with pytest.raises(ConfigError, match="not image"):
        extractor("image", [])


def test_missing_folders_are_one_clear_error(tmp_path: Path) -> None:
    for extractor in (ClipExtractor, ClapExtractor):
        with pytest.raises(ConfigError, match="give a folder that holds its files"):
            extractor(str(tmp_path / "nowhere"))
