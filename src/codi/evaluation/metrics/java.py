"""Caption metrics whose definition is a Java program: METEOR 1.5, SPICE, Stanford's tokenizer.

The programs are files of their authors, given by name; `java` has to be on the path. Nothing is
downloaded. Knows how to talk to them, and what to say when they are missing.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from codi.config import ConfigError
from codi.evaluation.metrics.captions import require_pairs
from codi.evaluation.metrics.words import PUNCTUATION

METEOR_JAR = "meteor-1.5.jar"
SPICE_JAR = "spice-1.0.jar"
TOKENIZER_JAR = "stanford-corenlp-3.4.1.jar"

NEEDS = {SPICE_JAR: ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")}
"""Files that a program cannot do without."""

_HEAP = "-Xmx2G"


def program(jar: str, folder: Path | None, needs: Sequence[str] = ()) -> Path:
    """Return the path of a program.

    Args:
        jar: its file name.
        folder: where it is; files further down are found as well.
        needs: other files it cannot do without.

    Raises:
        ConfigError: no Java, no such file, or one it needs is missing.
    """
    if shutil.which("java") is None:
        raise ConfigError(
            f"{jar} needs java on the PATH; install a Java runtime, version 8 or newer"
        )
    found = sorted(folder.rglob(jar)) if folder else []
    if not found:
        raise ConfigError(
            f"there is no {jar} below {folder or 'a folder of programs'}; it comes with "
            f"pip install pycocoevalcap; give that package's folder with --extractors java=FOLDER"
        )
    for other in needs:
        if not list(found[0].parent.rglob(other)):
            raise ConfigError(
                f"{found[0]}: needs {other} beside it, in lib/; it is part of Stanford CoreNLP "
                "3.6.0: nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
            )
    return found[0]


def _run(words: Sequence[str], given: str) -> str:
    """Return what a program writes; its messages are shown when it fails.

    Raises:
        ConfigError: it fails.
    """
    done = subprocess.run(
        ["java", *words], input=given, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConfigError(f"java {' '.join(words)}: {last}; try it with another Java runtime")
    return done.stdout


def stanford_words(sentences: Sequence[str], folder: Path | None) -> list[list[str]]:
    """Return the words of sentences by the tokenizer that published caption scores use.

    Raises:
        ConfigError: see `program`.
    """
    jar = program(TOKENIZER_JAR, folder)
    lines = "\n".join(" ".join(s.split()) or "." for s in sentences)
    out = _run(
        ["-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
        lines + "\n",
    )
    return [[w for w in line.split() if w not in PUNCTUATION] for line in out.splitlines()]


def meteor_15(
    candidates: Sequence[str], references: Sequence[Sequence[str]], folder: Path | None
) -> tuple[np.ndarray, float]:
    """Return METEOR 1.5 (Denkowski and Lavie, 2014): of every caption (n,), and of the whole.

    The whole's is the published number; it adds up matches first, and so is not quite the mean.

    Raises:
        ConfigError: see `program`.
        ValueError: a caption without references.
    """
    require_pairs(candidates, references)
    jar = program(METEOR_JAR, folder)
    asked = [
        " ||| ".join(["SCORE", *map(_plain, some), _plain(one)])
        for one, some in zip(candidates, references, strict=True)
    ]
    options = [_HEAP, "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    counted = _run(options, "\n".join(asked) + "\n").strip().splitlines()
    out = _run(options, " ||| ".join(["EVAL", *counted]) + "\n").split()
    return np.array([float(score) for score in out[:-1]]), float(out[-1])


def _plain(sentence: str) -> str:
    """Return a sentence without what the program's protocol uses itself."""
    return " ".join(sentence.replace("|||", " ").split()) or "."


def spice(
    candidates: Sequence[str], references: Sequence[Sequence[str]], folder: Path | None
) -> np.ndarray:
    """Return SPICE (Anderson et al., 2016) of every caption (n,), from 0 to 1.

    Raises:
        ConfigError: see `program`.
        ValueError: a caption without references.
    """
    require_pairs(candidates, references)
    jar = program(SPICE_JAR, folder, NEEDS[SPICE_JAR])
    asked = [
        {"image_id": i, "test": one, "refs": list(some)}
        for i, (one, some) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "asked.json", Path(name) / "scores.json"
        given.write_text(json.dumps(asked), encoding="utf-8")
        _run(["-Xmx8G", "-jar", str(jar), str(given), "-out", str(out), "-silent"], "")
        return spice_scores(json.loads(out.read_text(encoding="utf-8")))


def spice_scores(answers: Sequence[dict]) -> np.ndarray:
    """Return the F scores (n,) in the program's answers, in the order in which it was asked.

    A caption and references without any object have no F score, which counts as 0.
    """
    ordered = sorted(answers, key=lambda answer: answer["image_id"])
    return np.nan_to_num([float(a["scores"]["All"]["f"]) for a in ordered])


def spider(cider_d: np.ndarray, spice_f: np.ndarray) -> np.ndarray:
    """Return SPIDEr (Liu et al., 2017) of every caption: the mean of CIDEr-D and SPICE."""
    return (np.asarray(cider_d) + np.asarray(spice_f)) / 2.0
