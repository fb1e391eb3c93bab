"""Golden files, met or not: what our code makes of them beside what the other one made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from codi.config import ConfigError
from codi.convert import layouts as registry
from codi.convert.golden import Check, Golden, Made, Words

Verdict = Literal["pass", "fail", "not checked", "unmade", "unknown", "companion", "unusable"]


@dataclass(frozen=True)
class Line:
    """One tensor of one golden, or one golden that could not be compared.

    Attributes:
        golden: name of the golden.
        tensor: name in it, "" where the line is about the whole of it.
        verdict: "not checked" is what could not be compared, since something else is not there or
            the check has no use for it; "unmade" an output that the check does not make; "unknown"
            a golden that no check recognises; "companion" one with nothing to compare.
        absolute, relative: largest error, and its share of the expected tensor's deviation.
        tolerance: largest share allowed.
        note: why, in words.
    """

    golden: str
    tensor: str
    verdict: Verdict
    absolute: float | None = None
    relative: float | None = None
    tolerance: float | None = None
    note: str = ""

    @property
    def exit_code(self) -> int:
        """Return what the line means for the whole command."""
        codes = {"pass": 0, "not checked": 0, "companion": 0, "unusable": 2}
        return codes.get(self.verdict, 1)


def goldens_of(folder: Path, tokenizers: Path | None = None) -> list[Golden]:
    """Return the goldens of a folder, by name, also those that one of their two files is left of.

    Args:
        folder: of the goldens.
        tokenizers: folder of the vocabularies that cases in words need; `folder` when None.

    Raises:
        ConfigError: no such folder, or no golden in it.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name the folder of the golden files")
    if tokenizers is not None and not tokenizers.is_dir():
        raise ConfigError(f"{tokenizers}: no such folder; name the folder of the vocabularies")
    endings = ("json", "safetensors")
    stems = {path.stem for ending in endings for path in folder.glob(f"*.{ending}")}
    if not stems:
        raise ConfigError(f"{folder}: holds no golden (NAME.json beside NAME.safetensors)")
    return [Golden(folder / f"{stem}.json", tokenizers) for stem in sorted(stems)]


def exit_code_of(lines: Sequence[Line]) -> int:
    """Return what the lines of all goldens mean for the whole command.

    Where nothing was compared, nothing was verified either, whatever the reasons.
    """
    compared = any(line.verdict in ("pass", "fail") for line in lines)
    return max([line.exit_code for line in lines] + ([] if compared else [2]))


@torch.no_grad()
def verify(golden: Golden, checks: Sequence[Check] | None = None) -> Iterator[Line]:
    """Yield the lines of one golden; nothing that is wrong with it stops the others."""
    try:
        about = golden.about
        _require_tensors(golden)
        found = registry.CHECKS if checks is None else checks
        check = next((c for c in found if c.recognises(about)), None)
        if check is None:
            yield _unrecognised(golden)
            return
        yield from _compared(golden, check)
    except ConfigError as error:
        said = str(error)
        where = "" if str(golden.path.with_suffix("")) in said else f"{golden.path}: "
        yield Line(golden.name, "", "unusable", note=where + said)
    except KeyError as error:
        # A check reads settings and weights by their names, and either may lack one.
        note = f"{golden.path}: lacks {error}, in it or among its weights; add it"
        yield Line(golden.name, "", "unusable", note=note)
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RuntimeError,
    ) as error:
        # Files from elsewhere may lack what the check reads; the others are still run.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Line(golden.name, "", "unusable", note=f"{golden.path}: cannot be run ({reason})")


def _compared(golden: Golden, check: Check) -> Iterator[Line]:
    """Yield a line for whatever a golden holds or should hold, but for what the check read."""
    made = check.run(golden)
    found = {name: value for name, value in made.items() if _can_be_met(golden, name, value)}
    for name, value in found.items():
        if isinstance(value, Tensor):
            yield compare(golden, name, value, check.tolerance)
        else:
            yield _in_words(golden, name, value)
    for name in golden.tensors:
        if name in made:
            continue
        if name.startswith("out"):
            yield Line(golden.name, name, "unmade", note="an output that the check does not make")
        elif name not in golden.read and not name.startswith("w."):
            note = "the check neither makes nor reads it"
            yield Line(golden.name, name, "not checked", note=note)
    for name in _listed(golden):
        if not golden.has(name):
            note = f"listed in {golden.path.name}, and not in the file of tensors"
            yield Line(golden.name, name, "not checked", note=note)
    if not found:
        raise ConfigError(f"{golden.path}: holds nothing to compare; add the expected outputs")


def _can_be_met(golden: Golden, name: str, value: Made) -> bool:
    return isinstance(value, Words) or golden.has(name)


def _in_words(golden: Golden, name: str, words: Words) -> Line:
    if words.differing:
        return Line(golden.name, name, "fail", note=words.differing)
    verdict: Verdict = "not checked" if words.unchecked else "pass"
    return Line(golden.name, name, verdict, note=words.unchecked)


def _require_tensors(golden: Golden) -> None:
    """Check that a golden that speaks of tensors has a file of them.

    Raises:
        ConfigError: it has none.
    """
    path = golden.path.with_suffix(".safetensors")
    spoken_of = golden.about.get("tensors") or golden.about.get("n_weights")
    if spoken_of and not path.is_file():
        raise ConfigError(f"{path}: no such file, and {golden.path.name} tells of tensors; add it")


_BRACES = re.compile(r"\{([^{}]*)\}")


def _listed(golden: Golden) -> list[str]:
    """Return the names of tensors that a golden's JSON lists, {a,b} written out."""
    tensors = golden.about.get("tensors", {})
    names = [name for name in tensors if isinstance(name, str)] if tensors else []
    return [name for pattern in names for name in _written_out(pattern)]


def _written_out(pattern: str) -> list[str]:
    """Return the names that a pattern stands for.

    >>> _written_out("out_{a,b}")
    ['out_a', 'out_b']
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    start, end = pattern[: found.start()], pattern[found.end() :]
    return [n for word in found[1].split(",") for n in _written_out(start + word + end)]


def _unrecognised(golden: Golden) -> Line:
    inputs = [name for name in golden.tensors if not name.startswith("w.")]
    if golden.tensors and not inputs:
        return Line(golden.name, "", "companion", note="weights for other goldens")
    spoken_of = golden.tensors or golden.about.get("tensors")
    if not spoken_of and not any("config" in key for key in golden.about):
        return Line(golden.name, "", "companion", note="facts in words")
    what = str(golden.about.get("what", "")).partition(";")[0][:80]
    return Line(golden.name, "", "unknown", note=f"no check recognises it ({what or 'no `what`'})")


def compare(golden: Golden, name: str, made: Tensor, tolerance: float) -> Line:
    """Return the line of one tensor. Numbers that count something must be the same.

    What was expected may have been rounded when it was stored, such as to float16: as much as half
    the distance of two numbers there is no error.
    """
    wanted = golden.expected(name)
    if made.shape != wanted.shape:
        note = f"shape {tuple(made.shape)}, expected {tuple(wanted.shape)}"
        return Line(golden.name, name, "fail", note=note)
    if not wanted.is_floating_point():
        tolerance = 0.0
    error = (made.detach().double() - wanted.double()).abs()
    if wanted.dtype in (torch.float16, torch.bfloat16):
        limits = torch.finfo(wanted.dtype)
        rounded = 0.5 * limits.eps * wanted.double().abs().clamp_min(limits.tiny)
        error = (error - rounded).clamp_min(0.0)
    # NaN where both sides are the same infinity or NaN is agreement, anywhere else it is not.
    same = (made == wanted) | (made.isnan() & wanted.isnan())
    error = torch.where(same, torch.zeros_like(error), error.nan_to_num(nan=torch.inf))
    absolute = float(error.max()) if error.numel() else 0.0
    finite = wanted.double()[torch.isfinite(wanted)]
    deviation = float(finite.std(correction=0)) if finite.numel() else 0.0
    relative = absolute / (deviation or float(finite.abs().max() if finite.numel() else 0.0) or 1.0)
    verdict: Verdict = "pass" if relative <= tolerance else "fail"
    return Line(golden.name, name, verdict, absolute, relative, tolerance)
