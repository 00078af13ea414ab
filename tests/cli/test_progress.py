"""The progress display: plain lines in a file, a picture on a terminal, which is given back whatever happens."""

from __future__ import annotations

import os
import pty
import sys
import threading
from collections.abc import Callable, Iterator
from io import StringIO
from typing import IO

import anyio
import click
import pytest
from rich.console import Console

from engine.cli.progress import LiveProgress, Pace, PlainProgress, Watch, make_progress, parts, wrapped
from engine.report.metrics import Counters
from engine.testing import virtual_time
from engine.vocabulary.config import Prices

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """A pseudo-terminal; what was written to it can be read once it is closed."""

    def __init__(self, width: int) -> None:
        self._master, slave = pty.openpty()
        self.file: IO[str] = os.fdopen(slave, "w", encoding="utf-8")
        self.console = Console(
            file=self.file, width=width, height=24, highlight=False, color_system=None, _environ={"TERM": "xterm"}
        )

        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._drain)
        self._reader.start()

    def _drain(self) -> None:
        """A terminal that nobody reads is full after some 4 kB, and stops whoever writes."""
        while True:
            try:
                chunk = os.read(self._master, 65_536)
            except OSError:  # Linux says so when the other end is closed and all is read
                return
            if not chunk:
                return
            self._read.append(chunk)

    def written(self) -> str:
        self.close()
        return b"".join(self._read).decode()

    def close(self) -> None:
        if not self.file.closed:
            self.file.close()
            self._reader.join()
            os.close(self._master)


@pytest.fixture
def make_terminal() -> Iterator[Callable[[int], Terminal]]:
    made: list[Terminal] = []

    def make(width: int) -> Terminal:
        made.append(Terminal(width))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


def busy_counters() -> Counters:
    return Counters(
        records_total=1000, records_ok=610, records_failed=10, records_stored=120, requests=50, in_flight=8,
        tokens_input=1_200_000, tokens_output=30_000,
    )  # fmt: skip


async def _work(progress: PlainProgress | LiveProgress, counters: Counters, seconds: int) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(progress.keep_drawing)
        for _ in range(seconds):
            await anyio.sleep(1.0)
            counters.records_ok += 10
        tasks.cancel_scope.cancel()


def test_plain_lines_come_after_two_seconds_then_every_five(capsys: pytest.CaptureFixture[str]) -> None:
    """A log gets a line now and then, and the last state at the end."""
    counters = busy_counters()

    async def run() -> None:
        with make_progress(counters, prices=Prices(input=1.0, output=1.0), console=Console(file=StringIO())) as shown:
            assert isinstance(shown, PlainProgress)
            await _work(shown, counters, 13)

    virtual_time.run(run)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # at 2, 7 and 12 s, and the last
    assert lines[0].startswith("630 of 1,000 done, ")
    assert "/s, 10 failed, 120 stored earlier, 1.23M tokens, $1.23, 8 in flight" in lines[1]
    assert lines[1].endswith(" left")
    assert lines[-1].startswith("750 of 1,000 done, 10 failed")


def test_forced_colour_does_not_make_a_log_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many a CI sets FORCE_COLOR; a log cannot move its cursor all the same."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    with make_progress(Counters(), prices=None, console=Console(file=StringIO())) as shown:
        assert isinstance(shown, PlainProgress)


def test_nothing_is_said_of_a_run_in_which_nothing_happened(capsys: pytest.CaptureFixture[str]) -> None:
    """An input that cannot be used ends with its message alone."""
    with make_progress(Counters(), prices=None, console=Console(file=StringIO())):
        pass
    assert capsys.readouterr().err == ""


def test_a_reader_that_left_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """`annotate ... 2>&1 | head`: the display stops, the work goes on."""

    class Gone(StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    async def run() -> int:
        monkeypatch.setattr(sys, "stderr", Gone())
        counters = busy_counters()
        with make_progress(counters, prices=None, console=Console(file=StringIO())) as shown:
            await _work(shown, counters, 9)
        return counters.records_ok

    assert virtual_time.run(run) == 700


@pytest.mark.parametrize("width", [40, 80, 200])
def test_a_terminal_shows_bar_and_figures(make_terminal: Callable[[int], Terminal], width: int) -> None:
    """At any width: no line is wider than the terminal, and the cursor comes back."""
    terminal, counters = make_terminal(width), busy_counters()

    async def run() -> None:
        with make_progress(counters, prices=Prices(input=1.0, output=1.0), console=terminal.console) as shown:
            assert isinstance(shown, LiveProgress)
            await _work(shown, counters, 8)

    virtual_time.run(run)
    text = terminal.written()
    assert "━" in text
    assert text.index(HIDE) < text.rindex(SHOW)
    for said in ("of 1,000 done", "10 failed", "1.23M tokens", "$1.23", "8 in flight", " left", "120 stored earlier"):
        assert said in text
    plain = text.replace("\x1b[2K", "").replace("\x1b[1A", "").replace(HIDE, "").replace(SHOW, "")
    assert max(map(len, plain.replace("\r", "\n").split("\n"))) < width


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_the_cursor_comes_back_after_any_end(
    make_terminal: Callable[[int], Terminal], error: type[BaseException]
) -> None:
    """An exception or Ctrl-C in mid-run leaves the terminal as it was, and the picture erased."""
    terminal = make_terminal(60)
    before = sys.stderr
    with pytest.raises(error), make_progress(busy_counters(), prices=None, console=terminal.console):
        raise error
    assert sys.stderr is before
    text = terminal.written()
    assert text.rindex(HIDE) < text.rindex(SHOW)


def test_messages_stay_above_the_picture(make_terminal: Callable[[int], Terminal]) -> None:
    """What is said, and what others print to standard error, is not overwritten."""
    terminal, counters = make_terminal(60), busy_counters()

    async def run() -> None:
        with make_progress(counters, prices=None, console=terminal.console) as shown:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(shown.keep_drawing)
                await anyio.sleep(1.0)
                shown.say("a message [bold]as it is[/bold]")
                sys.stderr.write("a warning of somebody else\n")
                click.echo("\nan echo", err=True)
                await anyio.sleep(1.0)
                tasks.cancel_scope.cancel()

    virtual_time.run(run)
    text = terminal.written()
    assert "a message [bold]as it is[/bold]\r\n" in text
    assert "a warning of somebody else\r\n" in text
    assert "an echo\r\n" in text
    assert text.count("a message") == 1


def test_the_rate_is_of_late_and_leaves_out_what_was_stored() -> None:
    """A thousand stored answers at the start make no rate; a slow beginning is forgotten after half a minute."""
    counters = Counters(records_total=2000, requests=1, tokens_input=1)
    watch = Watch(counters, None)
    assert watch.view(0.0).per_s is None
    counters.records_ok = counters.records_stored = 1000
    assert watch.view(10.0).per_s is None
    for second in range(11, 61):
        counters.records_ok += 2
        view = watch.view(float(second))
    assert view.per_s == pytest.approx(2.0)
    assert view.left_s == pytest.approx(900 / 2)


def test_a_stalled_run_has_no_rate() -> None:
    """No time left is promised while nothing comes."""
    pace = Pace()
    for second in range(10):
        pace.per_s(float(second), second)
    assert [pace.per_s(float(second), 9) for second in range(10, 60)][-1] is None


def test_before_anything_is_sent_it_says_so() -> None:
    """A validating pass over a long file looks different from a run that hangs."""
    assert parts(Watch(Counters(), None).view(0.0)) == ["nothing sent yet"]
    known = Watch(Counters(records_total=5000), None).view(0.0)
    assert parts(known) == ["5,000 records in the input, nothing sent yet"]


def test_a_stream_has_no_total_and_no_time_left() -> None:
    """Live input ends when it ends."""
    said = parts(Watch(Counters(records_ok=7, in_flight=1), None).view(1.0))
    assert said == ["7 done", "0 failed", "0 tokens", "1 in flight"]


def test_parts_are_kept_whole() -> None:
    """Lines are filled as far as they go; what is too wide stands alone."""
    assert wrapped(["aaaa", "bbbb", "cc", "d" * 30], 12) == ["aaaa · bbbb", "cc", "d" * 30]


def test_a_run_that_waits_says_for_what() -> None:
    """A low limit at the start, or a pause later, is not taken for a run that hangs."""
    counters = Counters(records_total=10)
    counters.held_by = lambda: "tpm"
    assert parts(Watch(counters, None).view(1.0)) == [
        "10 records in the input, nothing sent yet",
        "waiting for tokens per minute",
    ]
    counters.records_ok, counters.tokens_input = 2, 100
    counters.held_by = lambda: "pause"
    assert "waiting for pauses after refusals and errors" in parts(Watch(counters, None).view(2.0))
    counters.in_flight = 1
    assert "1 in flight" in parts(Watch(counters, None).view(3.0))


def test_a_long_pause_is_told_with_its_length() -> None:
    """An hour's Retry-After is no "nothing sent yet", and a person reads how long it will be."""
    counters = Counters(records_total=12, requests=1, first_sent_s=1.0, held_by=lambda: "pause", paused_until_s=3600.0)
    watch = Watch(counters, None)
    assert parts(watch.view(60.0))[-1] == "paused for 59 min 00 s more, after errors or as the endpoint asked"
    assert not any("nothing sent" in part for part in parts(watch.view(60.0)))
    assert parts(watch.view(3595.0))[-1] == "waiting for pauses after refusals and errors"
    counters.in_flight = 1
    assert parts(watch.view(60.0))[-1] == "1 in flight"
