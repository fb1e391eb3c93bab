"""Tables that rename the tensors of a foreign checkpoint to ours, and back.

A rule pairs two dotted names, ours and the foreign one; it speaks of the tensor of exactly that
name and of all tensors below it, and the longest rule that fits decides. As no two rules of a table
share a name on either side, every table is a bijection: exporting undoes converting. Only where
a foreign layer does the work of several of ours, several rules name it, each with its share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TypeVar

import torch
from torch import Tensor

from codi.config import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class Layout:
    """How a tensor is laid out in both checkpoints; `to_ours` undoes `to_foreign`."""

    to_ours: Callable[[Tensor], Tensor]
    to_foreign: Callable[[Tensor], Tensor]


SAME = Layout(lambda x: x, lambda x: x)
POINTWISE = Layout(lambda x: x[..., 0], lambda x: x[..., None])
"""A foreign 1-D convolution of width 1, (out, in, 1), that is a linear layer here."""
POINTWISE_2D = Layout(lambda x: x[..., 0, 0], lambda x: x[..., None, None])
"""A foreign 2-D convolution of size 1 x 1, (out, in, 1, 1), that is a linear layer here."""
TRANSPOSED = Layout(lambda x: x.mT, lambda x: x.mT)
"""A foreign matrix stored (in, out), as GPT-2's are."""


@dataclass(frozen=True)
class Rule:
    """Our name, the foreign one, and how the layout differs; both name a tensor or a module.

    Attributes:
        share: (i, n) where ours is the i-th of n equal parts of the rows (as laid out here) that
            the foreign one has, such as queries where it makes queries, keys and values at once.
    """

    ours: str
    foreign: str
    layout: Layout = SAME
    share: tuple[int, int] = (0, 1)


def joined(ours: Iterable[str], foreign: str) -> tuple[Rule, ...]:
    """Return the rules of our modules whose tensors are one foreign module's, row after row.

    >>> [rule.share for rule in joined(["query", "key", "value"], "qkv")]
    [(0, 3), (1, 3), (2, 3)]
    """
    names = list(ours)
    return tuple(Rule(name, foreign, share=(i, len(names))) for i, name in enumerate(names))


def below(ours: str, foreign: str, rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules of a module for where it stands: both names with a module before them.

    >>> below("a", "x.0", [Rule("b", "y")])[0].ours
    'a.b'
    """
    return tuple(
        replace(rule, ours=_join(ours, rule.ours), foreign=_join(foreign, rule.foreign))
        for rule in rules
    )


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


@dataclass(frozen=True)
class Table:
    """The correspondence of one of our parts with one foreign module.

    Attributes:
        rules: names on both sides.
        unused: foreign names (globs) that have no counterpart here -> why they are not needed.
        fresh: our names (globs) that have no counterpart there -> what they begin as.
    """

    rules: tuple[Rule, ...]
    unused: Mapping[str, str] = field(default_factory=dict)
    fresh: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the table can be read in both directions.

        Raises:
            ConfigError: a name that two rules give.
        """
        both = (
            Counter(rule.ours for rule in self.rules),
            Counter(rule.foreign for rule in self.rules if rule.share[0] == 0),
        )
        for names in both:
            twice = sorted(name for name, count in names.items() if count > 1)
            if twice:
                raise ConfigError(f"two rules for {', '.join(twice[:3])}; keep one of them")
        for foreign, rules in self._by_foreign.items():
            if [rule.share for rule in rules] != [(i, len(rules)) for i in range(len(rules))]:
                raise ConfigError(f"the shares of {foreign} are not one each; see `joined`")

    def ours(self, foreign: str) -> tuple[str, Layout] | None:
        """Return our name of a foreign tensor and its layout, or None where no rule fits.

        None as well where it is several tensors here: see `all_ours`.
        """
        found = self.all_ours(foreign)
        return found[0] if len(found) == 1 else None

    def all_ours(self, foreign: str) -> list[tuple[str, Layout]]:
        """Return our names of a foreign tensor with their layouts; nothing where no rule fits.

        There is mostly one. Of several, each layout takes its share; `to_foreign` joins them.
        A name listed as unused has none, even where the rule of a module above it would fit.
        """
        if self.why_unused(foreign) is not None:
            return []
        rules = _longest(foreign, self._by_foreign) or []
        return [(rule.ours + foreign[len(rule.foreign) :], _of_share(rule)) for rule in rules]

    def foreign(self, ours: str) -> tuple[str, Layout] | None:
        """Return the foreign name of one of our tensors and its layout, or None.

        Several of ours may have one foreign name: see `all_ours`.
        """
        rule = _longest(ours, self._by_ours)
        return None if rule is None else (rule.foreign + ours[len(rule.ours) :], _of_share(rule))

    def to_ours(self, foreign: str, tensor: Tensor) -> dict[str, Tensor]:
        """Return what a foreign tensor is here, by our names; nothing where no rule fits."""
        return {name: layout.to_ours(tensor) for name, layout in self.all_ours(foreign)}

    def to_foreign(self, foreign: str, state: Mapping[str, Tensor]) -> Tensor:
        """Return a foreign tensor, made of our own `state`.

        Raises:
            KeyError: the state lacks a tensor of it, or no rule fits.
        """
        rules = _longest(foreign, self._by_foreign)
        if rules is None:
            raise KeyError(foreign)
        pieces = [state[rule.ours + foreign[len(rule.foreign) :]] for rule in rules]
        return rules[0].layout.to_foreign(pieces[0] if len(pieces) == 1 else torch.cat(pieces))

    @cached_property
    def _by_ours(self) -> dict[str, Rule]:
        return {rule.ours: rule for rule in self.rules}

    @cached_property
    def _by_foreign(self) -> dict[str, list[Rule]]:
        found: dict[str, list[Rule]] = {}
        for rule in self.rules:
            found.setdefault(rule.foreign, []).append(rule)
        return found

    def why_unused(self, foreign: str) -> str | None:
        """Return why a foreign tensor is not needed, or None when nothing says so."""
        return _reason(foreign, self.unused)

    def why_fresh(self, ours: str) -> str | None:
        """Return what one of our tensors without a counterpart begins as, or None."""
        return _reason(ours, self.fresh)


def _longest(name: str, rules: Mapping[str, T]) -> T | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        rule = rules.get(".".join(parts[:length]))
        if rule is not None:
            return rule
    return None


def _of_share(rule: Rule) -> Layout:
    """Return the layout of a rule; that of a share cannot be undone without the others."""
    index, count = rule.share
    if count == 1:
        return rule.layout
    return replace(rule.layout, to_ours=lambda x: rule.layout.to_ours(x).chunk(count)[index])


def _reason(name: str, reasons: Mapping[str, str]) -> str | None:
    return next((why for glob, why in reasons.items() if fnmatchcase(name, glob)), None)
