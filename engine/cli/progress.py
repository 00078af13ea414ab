"""Live progress: a display on a terminal, plain lines elsewhere. It reads counters and owns nothing.

It draws four times a second in a worker thread, whatever the run does: a terminal that is stopped (Ctrl-S), or slow,
holds up neither a request nor an answer, and the run pays nothing for a record.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Iterator

import anyio
import anyio.to_thread
import click
import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.text import Text

from engine.decide.pricing import cost_usd
from engine.report import words
from engine.report.metrics import Counters
from engine.report.sentences import BINDING
from engine.vocabulary.config import Prices

FIRST_LINE_S = 2.0
LINE_EVERY_S = 5.0
DRAW_EVERY_S = 0.25

_RECENT_S = 30.0
_LONG_PAUSE_S = 10.0  # from here on it is told how long: a person may rather come back later
_MIN_SPAN_S = 2.0
_MIN_BAR = 10
_MIN_WIDTH = 20


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to show at one moment. `total`, `per_s` and `left_s` are None while they are not known.

    :ivar held_by: what the next request waits for while nothing is in flight.
    :ivar has_sent: this run sent a request, whatever came of it.
    :ivar paused_s: what is left of a pause that holds it.
    :ivar per_s: records that ended by this run's doing, per second, of late.
    """

    done: int
    total: int | None
    failed: int
    stored: int
    tokens: int
    usd: float | None
    in_flight: int
    held_by: str | None
    per_s: float | None
    left_s: float | None
    has_sent: bool = False
    paused_s: float = 0.0

    @property
    def checking(self) -> bool:
        """Nothing has been asked or answered yet: the input is being read, or the model is being loaded."""
        return not (self.done or self.tokens or self.in_flight or self.has_sent)


class Pace:
    """Records per second over the last half minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def per_s(self, now: float, ended: int) -> float | None:
        """The rate at `now`, by when `ended` records have ended; None until it means something."""
        self._seen.append((now, ended))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _RECENT_S:
            self._seen.popleft()
        since, before = self._seen[0]
        if now - since < _MIN_SPAN_S or ended <= before:
            return None
        return (ended - before) / (now - since)


class Watch:
    """Makes views of counters."""

    def __init__(self, counters: Counters, prices: Prices | None) -> None:
        self._counters = counters
        self._prices = prices
        self._pace = Pace()

    def view(self, now: float | None) -> View:
        """What to show at loop time `now`; None when the run is over and no rate is wanted."""
        counters = self._counters
        done, total = counters.records_done, counters.records_total
        # Answers from the store come in no time, and would make a rate that nobody gets again.
        per_s = None if now is None else self._pace.per_s(now, done - counters.records_stored)
        held_by = None if now is None or counters.in_flight else counters.held_by()
        return View(
            done=done,
            total=total,
            failed=counters.records_failed,
            stored=counters.records_stored,
            tokens=counters.tokens_input + counters.tokens_output,
            usd=self._usd(),
            in_flight=counters.in_flight,
            held_by=held_by,
            has_sent=counters.first_sent_s is not None,
            paused_s=0.0 if now is None or held_by != "pause" else _paused_s(counters, now),
            per_s=per_s,
            left_s=(total - done) / per_s if per_s and total is not None and total > done else None,
        )

    def _usd(self) -> float | None:
        if self._prices is None:
            return None
        return cost_usd(
            self._prices,
            input_tokens=self._counters.tokens_input,
            cached_tokens=self._counters.tokens_cached,
            output_tokens=self._counters.tokens_output,
            written_tokens=self._counters.tokens_written,
        )


def _paused_s(counters: Counters, now: float) -> float:
    return max(0.0, counters.paused_until_s - now, counters.held_until_s - now)


def parts(view: View) -> list[str]:
    """What is said of a moment, the most important first."""
    waits = [] if view.held_by is None else [f"waiting for {BINDING[view.held_by]}"]
    if view.paused_s > _LONG_PAUSE_S:
        waits = [f"paused for {words.duration(view.paused_s)} more, after errors or as the endpoint asked"]
    if view.checking:
        known = "" if view.total is None else f"{words.plural(view.total, 'record')} in the input, "
        return [f"{known}nothing sent yet", *waits]
    total = "" if view.total is None else f" of {words.number(view.total)}"
    said = [f"{words.number(view.done)}{total} done"]
    if view.per_s is not None:
        said.append(f"{words.three_digits(view.per_s)}/s")
    said.append(f"{words.number(view.failed)} failed")
    if view.stored:
        said.append(f"{words.number(view.stored)} stored earlier")
    said.append(f"{words.short_number(view.tokens)} tokens")
    if view.usd is not None:
        said.append(words.usd(view.usd))
    said += waits or [f"{view.in_flight} in flight"]
    if view.left_s is not None:
        said.append(f"{words.clock(view.left_s)} left")
    return said


def wrapped(said: list[str], width: int) -> list[str]:
    """Parts put into lines of at most `width` cells, no part broken unless it alone is too wide."""
    lines: list[str] = []
    for part in said:
        joined = f"{lines[-1]} · {part}" if lines else part
        if lines and cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(part)
    return lines


class PlainProgress:
    """A line every few seconds."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    async def keep_drawing(self) -> None:
        """Print until cancelled, or until nobody reads any more."""
        pause_s = FIRST_LINE_S
        while True:
            await anyio.sleep(pause_s)
            pause_s = LINE_EVERY_S
            line = ", ".join(parts(self._watch.view(anyio.current_time())))
            if not await anyio.to_thread.run_sync(_echoed, line, abandon_on_cancel=True):
                return

    def say(self, text: str) -> None:
        """Print a message."""
        _echoed(text)

    def finish(self) -> None:
        """The last line, if anything happened."""
        view = self._watch.view(None)
        if not view.checking:
            _echoed(", ".join(parts(view)))


def _echoed(line: str) -> bool:
    """Print to standard error; False when nobody reads it any more, which is no reason to end a run."""
    try:
        click.echo(line, err=True)
    except (OSError, ValueError):
        return False
    return True


class _Picture:
    """What the live display shows: a bar where there is room, and the parts below it."""

    def __init__(self) -> None:
        self.view: View | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view = self.view
        if view is None:
            return
        width = max(_MIN_WIDTH, options.max_width - 1)  # a full last column wraps on some terminals
        if view.total:
            share = f" {100 * view.done // view.total:3d} %"
            bar = ProgressBar(total=view.total, completed=view.done, width=max(_MIN_BAR, width - len(share)))
            yield from bar.__rich_console__(console, options)
            yield Segment(share)
            yield Segment.line()
        for line in wrapped(parts(view), width):
            yield Text(line, no_wrap=True, overflow="ellipsis")


class _Above(FileProxy):
    """Standard error while something is drawn at the bottom: whatever is printed appears above it.

    rich's own stream says neither how it encodes nor what it does with errors; click.echo then takes it for broken and
    writes past it, into the picture.
    """

    encoding = "utf-8"
    errors = "replace"


class LiveProgress:
    """A display that is redrawn in place. It is gone when the run ends; the final table says what came of it."""

    def __init__(self, watch: Watch, console: Console) -> None:
        self._watch = watch
        self._console = console
        self._picture = _Picture()
        self._live = Live(
            self._picture,
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # results may go there, to a pipe
            redirect_stderr=False,
        )
        self._redirected = contextlib.redirect_stderr(_Above(console, console.file))

    async def keep_drawing(self) -> None:
        """Redraw until cancelled, or until the terminal is gone."""
        while True:
            self._picture.view = self._watch.view(anyio.current_time())
            if not await anyio.to_thread.run_sync(self._drawn, abandon_on_cancel=True):
                return
            await anyio.sleep(DRAW_EVERY_S)

    def _drawn(self) -> bool:
        try:
            if self._live.is_started:
                self._live.refresh()
        except (OSError, ValueError):
            return False
        return True

    def say(self, text: str) -> None:
        """Print a message above the display."""
        with contextlib.suppress(OSError, ValueError):
            self._console.print(Text(text), soft_wrap=True)

    def start(self) -> None:
        """Take the bottom of the terminal."""
        with contextlib.suppress(OSError, ValueError):
            self._live.start()
        self._redirected.__enter__()

    def finish(self) -> None:
        """Give the terminal back as it was, the cursor with it, whatever ended the run."""
        self._redirected.__exit__(None, None, None)
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()


class NoProgress:
    """Where standard error is for a program to read."""

    async def keep_drawing(self) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print a message."""
        _echoed(text)


@contextlib.contextmanager
def make_progress(
    counters: Counters, *, prices: Prices | None, console: Console | None = None, quiet: bool = False
) -> Iterator[PlainProgress | LiveProgress | NoProgress]:
    """The progress display that fits where standard error goes. Start `keep_drawing` as a task inside.

    :param quiet: none.
    :param console: of standard error; given in tests.
    """
    if quiet:
        yield NoProgress()
        return
    watch = Watch(counters, prices)
    console = console or Console(file=sys.stderr, highlight=False)
    # Not console.is_terminal: FORCE_COLOR, set in many a CI, makes it claim that a log file can move its cursor.
    if not console.file.isatty() or console.is_dumb_terminal:
        plain = PlainProgress(watch)
        try:
            yield plain
        finally:
            plain.finish()
        return
    live = LiveProgress(watch, console)
    live.start()
    try:
        yield live
    finally:
        live.finish()
