"""A key from a file: only one that nobody else can read, and what is wrong with it is told without showing it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from engine.adapters.key_file import key_for, read_secret
from engine.vocabulary.errors import ConfigError

LOCAL = "http://localhost:8000/v1"


def key_file(folder: Path, content: bytes = b"sk-hunter2\n", mode: int = 0o600) -> Path:
    """A file with a key."""
    path = folder / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_ones_own_is_read(mode: int, tmp_path: Path) -> None:
    """Without the line end that editors put there."""
    assert read_secret(str(key_file(tmp_path, mode=mode))).reveal() == "sk-hunter2"


@pytest.mark.parametrize("bit", [stat.S_IRGRP, stat.S_IWGRP, stat.S_IXGRP, stat.S_IROTH, stat.S_IWOTH, stat.S_IXOTH])
def test_a_file_that_others_can_use_is_refused(bit: int, tmp_path: Path) -> None:
    """Any right of group or world; the remedy is named, the key is not shown."""
    path = key_file(tmp_path, mode=0o600 | bit)
    with pytest.raises(ConfigError) as raised:
        read_secret(str(path))
    assert f"chmod 600 {path}" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_the_mode_is_that_of_the_file_and_not_of_a_link_to_it(tmp_path: Path) -> None:
    """A link has no mode of its own that would mean anything."""
    path = key_file(tmp_path, mode=0o644)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_secret(str(link))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"hunter2\nhunter3", "one line"),
        ("hunter2\u201c".encode(), "one line"),
        (b"hunter2\xff", "one line"),
        (b"hunter2\x00x", "one line"),
        (b"h" * 70_000, "one line"),
    ],
)
def test_what_is_no_key_is_told_and_not_shown(content: bytes, words: str, tmp_path: Path) -> None:
    """A file with more than a key in it is the wrong file."""
    with pytest.raises(ConfigError, match=words) as raised:
        read_secret(str(key_file(tmp_path, content)))
    assert "hunter" not in str(raised.value)
    assert "hhh" not in str(raised.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """And a folder."""
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_secret(str(tmp_path / "no"))
    with pytest.raises(ConfigError, match="directory"):
        read_secret(str(tmp_path))


def test_a_pipe_will_do(tmp_path: Path) -> None:
    """So that a password store can give the key without a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"sk-hunter2\n",))
    writer.start()
    assert read_secret(str(pipe)).reveal() == "sk-hunter2"
    writer.join()


def test_what_is_named_first_wins(tmp_path: Path) -> None:
    """The file on the command line, then the variable, then the file that a variable names, then the provider's."""
    ours, named = key_file(tmp_path, b"from-file"), tmp_path / "named"
    named.write_text("from-named-file")
    named.chmod(0o600)
    openai = "https://api.openai.com/v1"
    environment = {"OPENAI_API_KEY": "theirs"}
    steps = [
        ({}, "theirs"),
        ({"ANNOTATE_API_KEY_FILE": str(named)}, "from-named-file"),
        ({"ANNOTATE_API_KEY": "ours"}, "ours"),
    ]
    for more, expected in steps:
        environment |= more
        found = key_for(openai, environment)
        assert found is not None
        assert found.key.reveal() == expected
    found = key_for(openai, environment, key_file=str(ours))
    assert found is not None
    assert (found.key.reveal(), found.variable) == ("from-file", str(ours))
    assert key_for(LOCAL, {"OPENAI_API_KEY": "theirs"}) is None
