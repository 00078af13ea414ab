"""The page: one offline file in which nothing from outside is anything but text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from reporting import report_run

from engine.report.document import FailedRecord, FailureKind, Moment, Report, StopReason
from engine.report.html import chart, render
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Prices
from support import make_config, make_records

HOSTILE = "<script>alert(1)</script> \u202edesrever\u2066 \x1b[2J &amp; <img src=x onerror=alert(1)> \"' {{ 7*7 }}"


class Page(HTMLParser):
    """Tags, attributes and text of a page; balanced, or an error."""

    VOID = frozenset({"meta", "br", "polyline"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def eventful(tmp_path: Path) -> Report:
    """A report with every part that there can be."""
    config = msgspec.structs.replace(make_config(10), prices=Prices(input=0.15, output=0.6, cached_input=0.075))
    simulator = SimulatorConfig(
        faults={"drop": 0.05, "http_500": 0.05, "http_429": 0.02}, poison_marker="POISON", delay_s=1.0
    )
    records = make_records(300, lambda number: f"{'POISON' * (number % 30 == 3)} text {number}")
    return report_run(tmp_path, records, config, simulator).report


def test_a_page_is_whole_and_fetches_nothing(eventful: Report) -> None:
    """No script, no address, no style sheet: it opens offline, years later."""
    page = Page(render(eventful))
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onclick", "action"} & {name for name, _ in page.attributes}
    assert "url(" not in render(eventful)
    assert "default-src 'none'" in render(eventful)


def test_a_page_says_how_it_went(eventful: Report) -> None:
    """The headline and the figures of the report, in words."""
    words = Page(render(eventful)).words
    assert "290 of 300 records labelled (96.7 %), 10 failed, with simulated in 1 min 30 s" in words
    assert "Simulated endpoint" in words
    assert "for 1,000 valid records" in words
    assert "static prompt × (answers − calls)" in words
    assert f"{eventful.requests.total:,}" in words
    for cause in eventful.requests.causes:
        assert cause in words


def test_a_real_run_is_marked_real(tmp_path: Path) -> None:
    """Nobody takes a simulation for a measurement, or the reverse."""
    words = Page(render(report_run(tmp_path, simulated=False).report)).words
    assert "Real endpoint" in words
    assert "Simulated endpoint" not in words
    assert "simulator" not in words


def test_hostile_text_stays_text(eventful: Report) -> None:
    """Wherever text comes from outside: escaped, isolated, its controls and direction marks named."""
    failure = FailureKind(
        kind=HOSTILE, count=1, examples=[FailedRecord(id={"a": HOSTILE}, line=1, message=HOSTILE, calls=[1])]
    )
    hostile = msgspec.structs.replace(
        eventful,
        task=HOSTILE,
        model=HOSTILE,
        endpoint=HOSTILE,
        notices=[HOSTILE],
        failures=[failure],
        stop=StopReason(kind=HOSTILE, message=HOSTILE),
        requests=msgspec.structs.replace(eventful.requests, causes={HOSTILE: 1}),
    )
    text = render(hostile)
    page = Page(text)
    assert not {"script", "img"} & set(page.tags)
    assert not set(text) & set("\u202e\u2066\x1b")
    assert text.count('<span class="hidden">\\u202e</span>') >= 7
    assert "{{ 7*7 }}" in page.words
    assert text.count("<bdi>") == text.count("</bdi>") >= 8


def test_an_empty_run_and_an_unpriced_one_have_a_page(tmp_path: Path) -> None:
    """What is not known is a dash, never a crash."""
    words = Page(render(report_run(tmp_path, []).report)).words
    assert "0 of 0 records labelled" in words
    assert "Nothing was sent" in words
    assert "prices were not given" in words


def test_a_stopped_run_says_why_and_how_to_go_on(eventful: Report) -> None:
    """The reason in the endpoint's words, and what is left."""
    stopped = msgspec.structs.replace(eventful, stop=StopReason(kind="quota", message="the credit is used up"))
    words = Page(render(stopped)).words
    assert "Stopped before the end" in words
    assert "quota" in words
    assert "the credit is used up" in words


def test_the_curve_rises_to_the_top_right() -> None:
    """From the origin at the first send to all records at the last result."""
    drawn = chart([Moment(at_s=float(second), ok=3, failed=second % 2) for second in range(1, 11)])
    assert drawn is not None
    assert (drawn.most, drawn.seconds) == (35, 10.0)
    assert drawn.done.startswith("0.0,150.0 60.0,")
    assert drawn.done.endswith(" 600.0,0.0")
    heights = [float(corner.split(",")[1]) for corner in drawn.failed.split()]
    assert heights == sorted(heights, reverse=True)


def test_too_little_is_not_drawn() -> None:
    """A curve through one point says nothing."""
    assert chart([]) is None
    assert chart([Moment(at_s=1.0, ok=5, failed=0), Moment(at_s=2.0, ok=0, failed=0)]) is None


def test_no_placeholder_is_left_in_a_page(eventful: Report) -> None:
    """Neither a template's nor Python's None."""
    text = re.sub(r"<style>.*?</style>", "", render(eventful), flags=re.DOTALL)
    assert "{{" not in text
    assert "{%" not in text
    assert ">None<" not in text
