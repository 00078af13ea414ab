"""The page: one offline file in which nothing from outside is anything but text."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from reporting import hand_made, make_answer, make_call, report_run

from engine.decide.answer_form import AnswerForms
from engine.decide.batch_size import make_batch_size
from engine.decide.latency_target import LatencyTarget
from engine.decide.quality import QualityGuard
from engine.report.charts.gallery import PLOTS, hang
from engine.report.charts.moves import steps_of
from engine.report.document import FailedRecord, FailureKind, Report, StopReason
from engine.report.html import render
from engine.report.metrics import Counters
from engine.run.audit import Auditor
from engine.testing.simulator.command import SimulatorConfig
from engine.vocabulary.config import Prices, RunConfig
from support import make_config, make_records, make_task

HOSTILE = "<script>alert(1)</script> \u202edesrever\u2066 \x1b[2J &amp; <img src=x onerror=alert(1)> \"' {{ 7*7 }}"


class Page(HTMLParser):
    """Tags, attributes and text of a page; balanced, or an error."""

    VOID = frozenset({"meta", "br"})

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


def watched(forms: AnswerForms) -> Auditor:
    """A guard of the labels that has seen nothing but its trial of the other form."""
    guard = QualityGuard(max_disagreement=0.05, judges=True, start=1)
    return Auditor(
        guard, make_batch_size(RunConfig()), task=make_task(), most=64, rng=random.Random(0), price=lambda _: 0.0,
        asks=True, records_total=lambda: None, forms=forms,
    )  # fmt: skip


@pytest.fixture(scope="module")
def eventful(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report with every part that there can be."""
    config = msgspec.structs.replace(make_config(10), prices=Prices(input=0.15, output=0.6, cached_input=0.075))
    simulator = SimulatorConfig(
        faults={"drop": 0.05, "http_500": 0.05, "http_429": 0.02}, poison_marker="POISON", delay_s=1.0
    )
    records = make_records(300, lambda number: f"{'POISON' * (number % 30 == 3)} text {number}")
    return report_run(tmp_path_factory.mktemp("eventful"), records, config, simulator).report


@pytest.fixture(scope="module")
def page_text(eventful: Report) -> str:
    """Its page."""
    return render(eventful)


def test_a_page_is_whole_and_fetches_nothing(page_text: str) -> None:
    """No script, no address, no style sheet: it opens offline, years later."""
    page = Page(page_text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onclick", "action"} & {name for name, _ in page.attributes}
    assert "url(" not in page_text
    assert "default-src 'none'" in page_text


def test_a_page_says_how_it_went(eventful: Report, page_text: str) -> None:
    """The headline and the figures of the report, in words."""
    words = Page(page_text).words
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
    assert "&lt;script&gt;alert" in text[text.index("<svg") : text.rindex("</svg>")]
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


def test_no_placeholder_is_left_in_a_page(page_text: str) -> None:
    """Neither a template's nor Python's None."""
    text = re.sub(r"<style>.*?</style>", "", page_text, flags=re.DOTALL)
    assert "{{" not in text
    assert "{%" not in text
    assert ">None<" not in text


def test_every_part_is_drawn_or_said_to_be_left_out(eventful: Report, page_text: str) -> None:
    """A plot has a sentence about this run; one that would be empty has the reason; each wide one a narrow twin."""
    gallery = hang(eventful)
    assert len(gallery.pictures) + len(gallery.left_out) == len(PLOTS)
    assert len(gallery.pictures) >= 8
    words = Page(page_text).words
    for picture in gallery.pictures:
        assert picture.heading.endswith(".")
        assert re.search(r"\d", picture.heading)
        assert words.count(picture.title) >= 1
        assert (picture.narrow is not None) == picture.is_wide
    for left in gallery.left_out:
        assert left.reason in words
    assert page_text.count("<svg") == len(gallery.pictures) + sum(picture.is_wide for picture in gallery.pictures)


def test_the_same_report_makes_the_same_page(eventful: Report, page_text: str) -> None:
    """No date, no random name: two reports can be compared."""
    assert render(eventful) == page_text


def test_a_plot_takes_its_colours_from_the_page(page_text: str) -> None:
    """Legible in the dark and on paper: no colour is fixed, each is a variable that the page sets twice."""
    drawn = page_text[page_text.index("<svg") : page_text.rindex("</svg>")]
    assert not re.search(r"(?:fill|stroke):\s*(?:#|rgb|black|white)", drawn)
    for name in set(re.findall(r"var\((--[a-z]+)\)", drawn)):
        assert page_text.count(f"{name}:") == 2


def test_without_the_plotting_library_the_page_says_so_in_one_line(
    eventful: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the plots show is still said, and everything else is there."""
    monkeypatch.setitem(sys.modules, "engine.report.charts.canvas", None)  # as Python marks what cannot be imported
    text = render(eventful)
    words = Page(text).words
    assert "<svg" not in text
    assert "The plots are not drawn: the Python package matplotlib is not installed. pip install matplotlib" in words
    assert "valid records a second came in the steady part" in words
    assert f"{eventful.requests.total:,}" in words


def test_the_library_is_imported_only_to_write_a_page() -> None:
    """A run without a report does not wait for it."""
    program = "import sys, engine.cli.main, engine.report.html; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_report_of_before_the_plots_still_makes_a_page(eventful: Report) -> None:
    """Its tables, and why nothing is drawn."""
    older = msgspec.structs.replace(eventful, series=None, window=None, rate=None)
    assert "Not drawn" in Page(render(older)).words


def test_what_requests_without_a_reply_may_cost_stands_beside_the_cost_of_all_runs(eventful: Report) -> None:
    """It is in no sum, and is not left out."""
    runs = msgspec.structs.replace(eventful.all_runs, runs=2, unconfirmed_usd=1.5)
    assert "$1.50" in render(msgspec.structs.replace(eventful, all_runs=runs))


def test_a_latency_target_and_the_answer_form_are_in_the_report(tmp_path: Path) -> None:
    """What the target allowed, whether it was met, what became of the other form: figures, moves and words."""
    target = LatencyTarget(5.0, most=64)
    for second in range(25):
        target.observe_request(100.0 + second, size=64, latency_s=20.0)
    forms = AnswerForms(has_keyed=True)
    forms.observe_unkeyed()
    forms.observe_unkeyed()
    counters = Counters(requests=1, first_sent_s=100.0, target=target, auditor=watched(forms))
    calls, answers = [make_call(1)], [make_answer("r1", latency_s=9.0)]
    report = hand_made(calls, answers, counters=counters, config=RunConfig(target_p95_s=5.0))
    assert report.target is not None
    assert report.target.most_records == target.most_records < 64
    assert report.target.moves[0].at_s == target.history[0].at_s - 100.0
    assert report.answer_form is not None
    assert report.answer_form.outcome == "ignored"
    text = " ".join(render(report).split())
    assert "missed: p95 was 9" in text
    assert f"it allowed {target.most_records} records a request at the end" in text
    assert f"the target allows 64 → {target.most_records} a request" in steps_of(report)[0].what
