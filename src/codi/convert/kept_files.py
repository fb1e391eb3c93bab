"""The tokenizers that parts read with, as they lie beside published weights.

Two of them have files of the same names; they are told apart by words that only one has.
"""

from __future__ import annotations

from codi.convert.sources import KeptFiles

_CLIP_NAME = "clip-vit-large-patch14"
_OF_CLIP, _OF_BERT = '"<|startoftext|>"', '"[CLS]"'
_OF_GPT2 = ('"\u0120the"', r'"\u0120the"')  # as it is and as JSON escapes it

CLIP_TOKENIZER = KeptFiles(
    (
        ("vocab.json", "merges.txt"),
        ("tokenizer.json", "tokenizer_config.json"),  # as `transformers` 5 saves it
    ),
    places=(".", "tokenizer", "../tokenizer", _CLIP_NAME, f"openai/{_CLIP_NAME}"),
    of_others=(*_OF_GPT2, _OF_BERT),
)
BERT_TOKENIZER = KeptFiles(
    (("vocab.txt",), ("tokenizer.json",)),
    key="encoder_tokenizer",
    places=("bert-base-cased", "."),
    of_others=('"<|endoftext|>"',),
    as_folder=True,
)
GPT2_TOKENIZER = KeptFiles(
    (("vocab.json", "merges.txt"), ("tokenizer.json",)),
    key="decoder_tokenizer",
    places=("gpt2", "."),
    of_others=(_OF_CLIP, _OF_BERT),
    as_folder=True,
)
