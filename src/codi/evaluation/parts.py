"""Real data as tables: the parts, their facts, where each stands in a record and who reads it.

A new part is a row here. Its shards are `<part>-<split>*.tar`; `codi.evaluation.judges` has the
kinds of judges. It knows no file, no model and no network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from codi.evaluation.classifiers import CLASSES
from codi.modalities import modality as modality_entry


@dataclass(frozen=True)
class Fact:
    """Something that is known of every item.

    Attributes:
        name: what reports call it.
        at: where it stands in an item's record: "digit", "attributes.hair".
        judges: the kind of judge that reads it, for each modality that shows it.
        values: what captions call every value of the record. Empty: they are learned from the
            training records, which have those words at `said_at`.
        said_at: where a training record has the words, such as "captions.1".
        told: whether captions tell it.
    """

    name: str
    at: str
    judges: Mapping[str, str]
    values: Mapping[str, str] = field(default_factory=dict)
    said_at: str = ""
    told: bool = True

    def shown_by(self, modality: str) -> bool:
        """Say whether media of a modality show it; sentences do where captions tell it."""
        return self.told if modality_entry(modality).is_caption else modality in self.judges


@dataclass(frozen=True)
class Part:
    """Items of one kind.

    Attributes:
        name: what its shards' names begin with.
        modalities: what an item has; all of it belongs together, by event or by class.
        facts: that judges can read; a part without any is judged by retrieval alone.
        captions: as of `codi.data.source.ShardsConfig`, like `loop`.
        loop: whether clips begin again.
    """

    name: str
    modalities: tuple[str, ...]
    facts: tuple[Fact, ...] = ()
    captions: Mapping[str, str] = field(default_factory=dict)
    loop: bool = False


def looked_up(record: Any, path: str) -> Any:
    """Return what stands at a path of a record; None where nothing does.

    >>> looked_up({"attributes": {"hair": 3}, "captions": ["a", "b"]}, "captions.1")
    'b'
    """
    for key in path.split("."):
        try:
            record = record[int(key)] if isinstance(record, list) else record[key]
        except (KeyError, IndexError, TypeError, ValueError):
            return None
    return record


def said(sentence: str, words: str) -> bool:
    """Say whether a sentence has the words, one after the other and whole.

    >>> said("A voice says one!", "one"), said("someone", "one")
    (True, False)
    """
    return re.search(rf"(?<![a-z]){re.escape(words)}(?![a-z])", sentence.lower()) is not None


def _numbered(*words: str) -> dict[str, str]:
    """Return words by their number, as records have it."""
    return {str(number): word for number, word in enumerate(words)}


_SPRITES = (
    Fact(
        "hair",
        "attributes.hair",
        {"image": "scene", "video": "scene"},
        _numbered(
            "green spiky hair",
            "a dark blue topknot",
            "orange spiky hair",
            "white hair",
            "crimson hair",
            "purple curly hair",
            "balding grey hair",
            "red hair",
            "pink spiky hair",
            "orange curly hair",
        ),
    ),
    Fact(
        "top",
        "attributes.topwear",
        {"image": "scene", "video": "scene"},
        _numbered(
            "a maroon shirt",
            "a cyan shirt",
            "a cream shirt",
            "a grey vest",
            "a brown leather vest",
            "a white shirt and black tie",
            "chain mail",
        ),
    ),
    Fact(
        "skin",
        "attributes.body",
        {"image": "scene", "video": "scene"},
        _numbered(
            "light skin",
            "tan skin",
            "grey-blue skin",
            "lavender skin",
            "brown skin",
            "dark brown skin",
            "green orc skin",
        ),
        told=False,
    ),
    Fact(
        "legs",
        "attributes.bottomwear",
        {"image": "scene", "video": "scene"},
        _numbered(
            "white trousers",
            "golden leg armour",
            "red trousers",
            "steel leg armour",
            "teal trousers",
            "dark green trousers",
            "a brown skirt",
        ),
        told=False,
    ),
    Fact(
        "shoes",
        "attributes.shoes",
        {"image": "scene", "video": "scene"},
        _numbered("brown shoes", "golden boots", "steel boots"),
        told=False,
    ),
    Fact(
        "direction",
        "direction",
        {"image": "scene", "video": "scene"},
        _numbered("seen from behind", "facing left", "facing the viewer", "facing right"),
    ),
    Fact(
        "action",
        "action",
        {"video": "motion"},
        {
            "hurt": "falling down",
            "shoot": "drawing a bow",
            "slash": "slashing",
            "spell": "casting a spell",
            "thrust": "thrusting",
            "walk": "walking",
        },
    ),
)

DIGITS = Part(
    "digits",
    ("text", "image", "video", "audio"),
    facts=(
        Fact(
            "digit",
            "digit",
            {"image": "glyph", "video": "glyph", "audio": "voice"},
            _numbered(*CLASSES),
        ),
    ),
    captions={
        "audio": "voice|the digit",
        "image": "handwritten|the digit",
        "video": "handwritten|the digit",
        "text": "the digit",
    },
)

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        DIGITS,
        Part(
            "esc",
            ("text", "audio"),
            facts=(Fact("class", "concept", {"audio": "sound"}, said_at="captions.1"),),
            # The uploader's title, another caption, need not say what sounds.
            captions=dict.fromkeys(("text", "audio"), "^the sound of"),
        ),
        Part("noto", ("text", "image", "video"), loop=True),
        Part("notostill", ("text", "image")),
        Part(
            "sprites",
            ("text", "image", "video"),
            facts=_SPRITES,
            # The shorter caption: the other one is too long for the sentences of small models.
            captions=dict.fromkeys(("text", "image", "video"), "^a character"),
            loop=True,
        ),
        Part(
            "handsign",
            ("text", "image"),
            facts=(Fact("digit", "digit", {"image": "scene"}, _numbered(*CLASSES)),),
        ),
    )
}
"""Every part of the real data, by name."""
