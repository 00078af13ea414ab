"""Text to people: what comes from data, models and endpoints must not steer their terminal."""

from __future__ import annotations

import errno
import os
import re
import shlex
from collections.abc import Sequence

UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EAGAIN, errno.EBADF, errno.ENXIO)
"""What a write to a stream fails with where nobody is to blame but the place that it goes to."""

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str) -> str:
    """`text` with control characters spelled out, line ends and tabs apart."""
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def one_line(text: str, *, most: int = 300) -> str:
    """`text` on one line, cut where it is too long."""
    line = plain(" ".join(text.split()))
    return line if len(line) <= most else line[: most - 3] + "..."


def pasteable(words: Sequence[str]) -> str:
    """A command line that can be pasted."""
    return shlex.join(["annotate", *words])


def silence_stdout() -> None:
    """Nobody reads any more (`| head`): what the interpreter flushes at its end must not complain."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
