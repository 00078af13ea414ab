"""The end of a run in words: the same facts in colour and in plain text."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reporting import report_run
from rich.console import Console

from engine.cli.final import Places, plain_lines, print_final
from engine.report.document import FailureKind, Report, StopReason
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Packing, Prices, RunConfig
from support import make_config, make_records

PLACES = Places(output="out.jsonl", store="out.jsonl.store.sqlite", report="r/report.html")


class FakeTerminal(StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def make_final(folder: Path, **simulator: Any) -> Report:
    config = msgspec.structs.replace(make_config(10), prices=Prices(input=1.0, output=4.0))
    records = make_records(200, lambda number: f"{'POISON' * (number % 50 == 3)} text {number}")
    return report_run(folder, records, config, SimulatorConfig(delay_s=0.5, poison_marker="POISON", **simulator)).report


def said_by(report: Report, *ways_on: str) -> str:
    return "\n".join(plain_lines(report, PLACES, ways_on))


def test_the_end_names_every_figure_and_place(tmp_path: Path) -> None:
    """Records, requests, tokens with what was saved, speed, price, failures, and where everything lies."""
    report = make_final(tmp_path, faults={"http_429": 0.3})
    text = said_by(report)
    assert text.startswith("196 of 200 records labelled (98.0 %), 4 failed, with simulated in 1 min 30 s (simulated")
    for part in (
        "196 ok · 4 failed",
        f"{report.requests.total} · ",
        " malformed",
        " HTTP 429",
        "of the input saved against one record a call",
        "valid records/s",
        "request p50 500 ms, p95 ",
        "for 1,000 valid records",
        "out.jsonl.store.sqlite",
        "r/report.html",
    ):
        assert part in text
    assert all(failure.kind in text for failure in report.failures)
    assert text.endswith("the same command with --retry-failed")


def test_all_runs_may_have_cost_more_than_was_stated(tmp_path: Path) -> None:
    """What requests without a reply may be billed for is said beside the sum over all runs, as a budget counts it."""
    report = make_final(tmp_path)
    spent = msgspec.structs.replace(report.all_runs, runs=2, requests=1_000, usd=0.5, unconfirmed_usd=0.25)
    text = said_by(msgspec.structs.replace(report, all_runs=spent))
    assert "$0.5000 · up to $0.2500 more for requests without a reply" in text
    certain = msgspec.structs.replace(spent, unconfirmed_usd=0.0)
    assert "more for requests" not in said_by(msgspec.structs.replace(report, all_runs=certain))


def test_what_cannot_be_read_is_not_to_be_retried(tmp_path: Path) -> None:
    """Asking again mends no broken line: the input is what has to be mended, and only then does anything come of it."""
    report = make_final(tmp_path)
    bad = FailureKind(kind="bad-record", count=report.records.failed, examples=[])
    text = said_by(msgspec.structs.replace(report, failures=[bad]))
    assert "mend the input" in text
    assert "--retry-failed" not in text


def test_a_stop_says_why_and_how_to_go_on(tmp_path: Path) -> None:
    """The reason, made safe to print, then what the command line knows of ways on."""
    stopped = msgspec.structs.replace(make_final(tmp_path), stop=StopReason(kind="budget", message="spent \x1b[31m"))
    text = said_by(stopped, "Go on with: annotate run t i")
    assert text.endswith("annotate: stopped (budget): spent \\x1b[31m\nGo on with: annotate run t i")
    assert "--retry-failed" not in text


@pytest.mark.parametrize(("changed", "lines"), [(1, "was asked again (line 7)"), (9, "(lines 7, 8, ...)")])
def test_changed_records_are_named_by_their_lines(tmp_path: Path, changed: int, lines: str) -> None:
    """With line numbers as ids, an inserted line moves every id behind it."""
    report = make_final(tmp_path)
    records = msgspec.structs.replace(report.records, changed=changed, changed_lines=[7] if changed == 1 else [7, 8])
    assert lines in said_by(msgspec.structs.replace(report, records=records))


def test_a_run_that_sent_nothing_is_short(tmp_path: Path) -> None:
    """No zeros for what was not measured."""
    make_final(tmp_path)
    text = said_by(make_final(tmp_path))
    assert "stored earlier" in text
    assert "latency" not in text
    assert "all runs" in text


@pytest.mark.parametrize("width", [40, 100])
def test_a_terminal_gets_the_same_in_lines_that_fit(tmp_path: Path, width: int) -> None:
    """Nothing is cut off, at forty columns either."""
    report = msgspec.structs.replace(
        make_final(tmp_path), failures=[FailureKind(kind="[red]kind[/red]\x1b", count=1, examples=[])]
    )
    screen = FakeTerminal()
    console = Console(file=screen, width=width, color_system=None, highlight=False, _environ={"TERM": "xterm"})
    print_final(report, PLACES, console=console)
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines[:-1])) <= width
    squeezed = "".join(screen.getvalue().split())
    assert "[red]kind[/red]\\x1b" in squeezed
    assert "r/report.html" in squeezed


def test_a_log_gets_plain_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Colour and wrapping are for terminals."""
    print_final(make_final(tmp_path), PLACES, console=Console(file=StringIO()))
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "  requests    " in text


def test_what_was_found_out_of_the_endpoint_is_said(tmp_path: Path) -> None:
    """A window that nobody gave, and a limit that its headers name."""
    config = RunConfig(packing=Packing(batch_size=5))
    report = report_run(tmp_path, make_records(400), config, SimulatorConfig(delay_s=0.5, rpm=120)).report
    (line,) = [line for line in said_by(report).splitlines() if line.startswith("  found out")]
    assert f"{report.window and report.window.settled} in flight at the end" in line
    assert "118 requests a minute: the endpoint's headers name the limit" in line
    (tmp_path / "given").mkdir()
    given = make_final(tmp_path / "given")
    assert "found out" not in said_by(given)


def test_a_long_pause_is_in_the_summary(tmp_path: Path) -> None:
    """An hour that the endpoint asked for is told; a second of it is not worth a line."""
    report = make_final(tmp_path)
    for pause_s, told in ((3540.0, True), (1.0, False)):
        wait = msgspec.structs.replace(report.queue_wait_s, pause=pause_s)
        said = said_by(msgspec.structs.replace(report, queue_wait_s=wait))
        assert ("59 min 00 s in all, after errors or as the endpoint asked" in said) == told
