"""Tables that rename the tensors of a foreign checkpoint to ours, and back.

A rule pairs two dotted names, ours and the foreign one; it speaks of the tensor of exactly that
name and of all tensors below it, and the longest rule that fits decides. As no two rules of a table
share a name on either side, every table is a bijection: exporting undoes converting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

from torch import Tensor

from codi.config import ConfigError


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
    """Our name, the foreign one, and how the layout differs; both name a tensor or a module."""

    ours: str
    foreign: str
    layout: Layout = SAME


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
        for side in ("ours", "foreign"):
            names = Counter(getattr(rule, side) for rule in self.rules)
            twice = sorted(name for name, count in names.items() if count > 1)
            if twice:
                raise ConfigError(f"two rules for {', '.join(twice[:3])}; keep one of them")

    def ours(self, foreign: str) -> tuple[str, Layout] | None:
        """Return our name of a foreign tensor and its layout, or None where no rule fits."""
        rule = _longest(foreign, self._by_foreign)
        return None if rule is None else (rule.ours + foreign[len(rule.foreign) :], rule.layout)

    def foreign(self, ours: str) -> tuple[str, Layout] | None:
        """Return the foreign name of one of our tensors and its layout, or None."""
        rule = _longest(ours, self._by_ours)
        return None if rule is None else (rule.foreign + ours[len(rule.ours) :], rule.layout)

    @cached_property
    def _by_ours(self) -> dict[str, Rule]:
        return {rule.ours: rule for rule in self.rules}

    @cached_property
    def _by_foreign(self) -> dict[str, Rule]:
        return {rule.foreign: rule for rule in self.rules}

    def why_unused(self, foreign: str) -> str | None:
        """Return why a foreign tensor is not needed, or None when nothing says so."""
        return reason(foreign, self.unused)

    def why_fresh(self, ours: str) -> str | None:
        """Return what one of our tensors without a counterpart begins as, or None."""
        return reason(ours, self.fresh)


def _longest(name: str, rules: Mapping[str, Rule]) -> Rule | None:
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        rule = rules.get(".".join(parts[:length]))
        if rule is not None:
            return rule
    return None


def reason(name: str, reasons: Mapping[str, str]) -> str | None:
    """Return the reason of the first glob that a name fits, or None."""
    return next((why for glob, why in reasons.items() if fnmatchcase(name, glob)), None)
