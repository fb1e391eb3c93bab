"""The one error of the media package, and how its line is put together.

Every line names the file, what is wrong with which value, and the mend. Knows nothing of formats.
"""

from __future__ import annotations

import errno
import os


class MediaError(ValueError):
    """Report a file or an array that cannot go in or out, in one line written for a person."""


def display(source: str | os.PathLike[str]) -> str:
    """Return a file's name as one printable line, whatever bytes or line breaks it holds."""
    text = os.fspath(source)
    return (
        "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
        or "(no name)"
    )


def fault(source: str | os.PathLike[str], problem: str, mend: str) -> MediaError:
    """Build the line `source: problem; mend`, without line breaks."""
    return MediaError(f"{display(source)}: {' '.join(f'{problem}; {mend}'.split())}")


def reason(error: BaseException) -> str:
    """Say in a few words what a library's exception says, without its numbers and paths."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:120].rstrip(".")


# What the operating system says -> (problem, mend). {folder} is the file's folder.
_READ_FAULTS = {
    errno.ENOENT: ("no such file", "check the path"),
    errno.ENOTDIR: ("no such file (a part of the path is not a folder)", "check the path"),
    errno.EACCES: ("no permission to read it", "change its permissions or copy it elsewhere"),
    errno.EPERM: ("no permission to read it", "change its permissions or copy it elsewhere"),
    errno.EISDIR: ("is a folder", "name a file inside it"),
    errno.ELOOP: ("is a link that leads back to itself", "name the real file"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "check the path"),
}
_WRITE_FAULTS = {
    errno.ENOENT: ("cannot be written: there is no folder {folder}", "create the folder first"),
    errno.ENOTDIR: ("cannot be written: {folder} is not a folder", "choose another folder"),
    errno.EACCES: (
        "cannot be written: no permission to write in {folder}",
        "choose another folder or change its permissions",
    ),
    errno.EPERM: (
        "cannot be written: no permission to write in {folder}",
        "choose another folder or change its permissions",
    ),
    errno.EROFS: ("cannot be written: {folder} is read-only", "choose another folder"),
    errno.EISDIR: ("is a folder", "add a file name to it"),
    errno.ENOSPC: ("cannot be written: the disk is full", "free some space or choose another disk"),
    errno.EDQUOT: (
        "cannot be written: your disk quota is used up",
        "free some space or choose another disk",
    ),
    errno.EFBIG: (
        "cannot be written: the file would be larger than this system allows",
        "raise the file size limit or choose another disk",
    ),
    errno.ENAMETOOLONG: (
        "cannot be written: the name is too long for this file system",
        "choose a shorter name",
    ),
}


def read_fault(source: str | os.PathLike[str], error: OSError) -> MediaError:
    """Turn an operating system's error on reading into a `MediaError`."""
    default = (f"cannot be read ({reason(error)})", "check the file and its disk")
    return fault(source, *_READ_FAULTS.get(error.errno or 0, default))


def write_fault(source: str | os.PathLike[str], error: OSError) -> MediaError:
    """Turn an operating system's error on writing into a `MediaError`."""
    default = (f"cannot be written ({reason(error)})", "check the folder and its disk")
    problem, mend = _WRITE_FAULTS.get(error.errno or 0, default)
    folder = display(os.path.dirname(os.path.abspath(source)))  # noqa: PTH100, PTH120
    return fault(source, problem.format(folder=folder), mend)


def cut_off(source: str | os.PathLike[str], problem: str) -> MediaError:
    """Say that the end of a file is missing."""
    return fault(source, f"is cut off: {problem}", "copy it again or save it anew")


def promise(promised_s: float, there_s: float) -> str:
    """Say that a sound or a video is shorter than its header says."""
    there = f"only {seconds(there_s)} are there" if there_s >= 0.01 else "nothing of it is there"
    return f"its header promises {seconds(promised_s)}, but {there}"


def motionless(source: str | os.PathLike[str], mend: str) -> MediaError:
    """Say that a video has one frame."""
    return fault(source, "is a single picture, not a moving one", mend)


def seconds(duration_s: float) -> str:
    """Write a duration for a note: one decimal, two where the second one says something."""
    text = f"{duration_s:.2f}"
    return f"{text[:-1] if text.endswith('0') else text} s"


def used(duration_s: float, total_s: float | None) -> str:
    """Write for a note that the beginning was used; `total_s` is None where the file tells none."""
    if not total_s:
        return f"used the first {seconds(duration_s)}, as the file does not tell its length"
    return f"used {seconds(duration_s)} of {seconds(total_s)} from the start"


def require_positive(**values: float) -> None:
    """Reject sizes, rates and durations that are not positive finite numbers.

    Raises:
        MediaError: naming the first offender.
    """
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise MediaError(f"{name} is {value}; it must be a positive number")
