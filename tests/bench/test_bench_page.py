"""The page of a bench: it says what its document holds, and nothing from outside is anything but text."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from bench_support import make_bench, make_closed, make_grid, make_open, make_visit
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.bench.document import Bench
from engine.bench.page.arrivals import arrivals_plot
from engine.bench.page.curve import curve_plot
from engine.bench.page.html import PLOTS, draw_again, is_bench, render, write_page
from engine.bench.page.load import load_plot
from engine.bench.page.use import cost_plot, used_plot, waste_plot
from engine.bench.sentences import headline, visits
from engine.report import words
from engine.report.charts.plot import LeftOut, Plot
from engine.vocabulary.errors import ConfigError

HOSTILE = "<script>alert(1)</script> \u202edesrever\u2066 \x1b[2J &amp; <img src=x onerror=alert(1)> \"' {{ 7*7 }}"
PRICED = {"prices": {"input": 1.0, "output": 2.0, "cached_input": 0.5}}


class Page(HTMLParser):
    """Tags, attributes and words of a page; balanced, or an error."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.names: set[str] = set()
        self._text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.names |= {name for name, _ in attrs}
        if tag not in {"meta", "br"}:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self._text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._text).split())


def saturating(batch_size: int, concurrency: int) -> float:
    """A server whose throughput bends."""
    return 10 * batch_size**0.4 * concurrency / (1 + concurrency / 6)


def make_full() -> Bench:
    """A bench with everything that there can be on a page."""
    wasteful = make_closed(64, 1, [make_visit(3.0, 21.0, waste_share=0.25, usd_per_1000=0.3, errors={"server": 3})])
    return make_bench(
        [*make_grid((1, 4, 16), (1, 2, 4, 8), saturating), wasteful],
        [make_open(20.0, 0.5, answered_per_s=20.0), make_open(50.0, 9.0, unanswered=31, answered_per_s=40.0)],
        target_p95_s=2.5, settings={**PRICED, "requests_per_minute": 300.0},
    )  # fmt: skip


@pytest.fixture(scope="module")
def full() -> Bench:
    return make_full()


@pytest.fixture(scope="module")
def full_text(full: Bench) -> str:
    return render(full)


def said(plot: Plot | LeftOut) -> str:
    assert isinstance(plot, Plot), plot
    return plot.heading


def test_a_page_is_whole_and_fetches_nothing(full_text: str) -> None:
    """No script, no address, no style sheet: it opens offline, years later, in the reader's colours."""
    page = Page(full_text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not {"src", "href", "onclick", "action"} & page.names
    assert "url(" not in full_text
    assert "default-src 'none'" in full_text
    drawn = full_text[full_text.index("<svg") : full_text.rindex("</svg>")]
    assert not re.search(r"(?:fill|stroke):\s*(?:#|rgb|black|white)", drawn)
    assert full_text.count("<svg") == 2 * 3 + 3  # three as wide as the page, with a narrow twin each


def test_the_page_says_what_the_document_holds(full: Bench, full_text: str) -> None:
    """The best cell, every cell's medians, every arrival rate, settings, seed and versions."""
    shown = Page(full_text).words.replace("\u00a0", " ")
    assert full.best is not None
    value = words.three_digits(full.best.value)
    assert f"Most in requests of at most 2.5 s: {value} records/s with {full.best.batch_size} a request and" in shown
    for point in full.closed:
        assert point.summary.records_per_s is not None
        row = f"{point.batch_size} × {point.concurrency} "
        assert row in shown
        assert words.three_digits(point.summary.records_per_s.median) in shown
        assert words.seconds(point.summary.request_latency_s["p95"].median) in shown
    assert "31 of 200" in shown
    assert "Seed 7" in shown
    assert "python 3.12.1" in shown
    assert "Requests a minute 300" in shown
    assert "3 server" in shown


grids = st.lists(
    st.tuples(
        st.sampled_from((1, 2, 4, 8)), st.sampled_from((1, 3, 9, 27)), st.floats(0.0, 5000.0), st.floats(0.001, 900.0)
    ),
    min_size=2, max_size=10, unique_by=lambda cell: cell[:2],
)  # fmt: skip


@given(grids, st.none() | st.floats(0.1, 100.0))
@settings(max_examples=60, deadline=None)
def test_headings_hold_figures_of_the_document_only(
    cells: list[tuple[int, int, float, float]], target_s: float | None
) -> None:
    """Whatever was measured: each number in a heading is one of the document, rounded as everywhere, or a count."""
    closed = [
        make_closed(size, many, [make_visit(rate, latency_s, goodput_per_s=rate if latency_s < 1 else 0.0)])
        for size, many, rate, latency_s in sorted(cells)
    ]
    document = make_bench(closed, target_p95_s=target_s)
    known = {"95"} | {str(count) for count in range(len(closed) + 1)}
    texts = [words.three_digits(rate) for _, _, rate, _ in cells]
    texts += [words.seconds(1.3 * latency_s) for _, _, _, latency_s in cells]
    texts += [f"{size} {many}" for size, many, _, _ in cells] + [f"{target_s:g}" if target_s else ""]
    known |= {number for text in texts for number in re.findall(r"[\d.,e+-]*\d", text)}
    for text in (
        headline(document),
        *(plot.heading for make in (curve_plot, load_plot) if isinstance(plot := make(document), Plot)),
    ):
        assert set(re.findall(r"[\d.,e+-]*\d", text)) <= known, text


def test_the_curve_names_the_knee_and_counts_what_kept_the_target() -> None:
    """The knee of the best cell's batch size, and whether more was tried beyond it."""
    flat = {1: 10.0, 2: 20.0, 4: 20.1, 8: 20.2}
    document = make_bench(make_grid((1,), tuple(flat), lambda _, many: flat[many]), target_p95_s=0.3)
    assert said(curve_plot(document)) == (
        "With 1 a request the knee is at 2 in flight, with 20.0 records/s, request p95 130 ms; 3 of 4 cells kept p95 "
        "within 0.3 s."
    )
    rising = make_bench(make_grid((1,), (1, 2, 4), lambda _, many: 10.0 * many))
    assert "no more were tried, so there may be more beyond" in said(curve_plot(rising))
    assert "throughput went from 10.0 to 40.0 records/s" in said(load_plot(rising))


def test_the_open_loop_says_up_to_which_rate_the_target_held() -> None:
    """A rate counts only if every lower one held as well; records without an answer are said."""
    opened = [
        make_open(10.0, 0.5, answered_per_s=10.0), make_open(20.0, 4.0, unanswered=9, answered_per_s=15.0),
        make_open(30.0, 0.5, answered_per_s=30.0),
    ]  # fmt: skip
    closed = make_grid((1, 4), (1, 8), saturating)
    heading = said(arrivals_plot(make_bench(closed, opened, target_p95_s=1.0)))
    assert heading.startswith("Up to 10.0 records/s arriving 95 % had their answer within 1 s (there 650 ms)")
    assert "with 20.0 arriving, 9 of 200 records had none" in heading
    assert "At no rate tried" in said(arrivals_plot(make_bench(closed, opened, target_p95_s=0.1)))
    assert "with 30.0 within 650 ms" in said(arrivals_plot(make_bench(closed, opened)))


def test_waste_cost_and_use_name_their_cells(full: Bench) -> None:
    """The worst, the cheapest and the best cell, with their figures."""
    assert "in a cell at most 25.0 %, with 64 a request and 1 in flight" in said(waste_plot(full))
    assert "cost least with 16 a request and 8 in flight: $0.0125." in said(cost_plot(full))
    assert "requests in flight 98 %; what binds: requests in flight" in said(used_plot(full))


def test_what_would_be_empty_is_left_out_with_its_reason() -> None:
    """One cell, no prices, no waste, no arrival rates: said below the others, and the page is there."""
    document = make_bench([make_closed(2, 4, [make_visit(42.0, 0.2)])])
    shown = Page(render(document)).words
    assert headline(document) == "42.0 records/s with 2 a request and 4 in flight, the only cell measured"
    assert "Not drawn" in shown
    for reason in ("one cell makes no curve", "prices were not given", "no token was wasted", "no arrival rates were"):
        assert reason in shown


def test_a_sweep_in_which_everything_failed_says_so_and_why() -> None:
    """Neither a best cell nor a knee; the causes, and what was tried."""
    document = make_bench(
        make_grid((1, 4), (1, 4), lambda *_: 0.0), partial=True, stopped="the endpoint has answered nothing in 4 cells"
    )
    shown = Page(render(document)).words
    assert "None of 4 cells brought a valid record" in shown
    assert "480 server" in shown
    assert "no cell brought a valid record" in shown
    assert "answered nothing in 4 cells" in shown
    assert "Nothing was measured" in Page(render(make_bench([]))).words


def test_a_cell_without_an_answer_is_counted_and_not_drawn() -> None:
    """A curve does not go through 0 where nothing was measured."""
    cells = [*make_grid((1,), (1, 4), saturating), make_closed(1, 16, [make_visit(0.0, 0.0)])]
    plot = curve_plot(make_bench(cells))
    assert isinstance(plot, Plot)
    assert "Not drawn: 1 cell without a valid record" in plot.note
    assert "from 1 to 4 in flight" in said(load_plot(make_bench(cells)))
    assert render(make_bench(cells)).count("<svg") > 0


def test_simulated_and_partial_are_marked(full: Bench, full_text: str) -> None:
    """Nobody takes a simulation for a measurement, nor a part for the whole, or the reverse."""
    assert "Simulated endpoint" in Page(full_text).words
    assert "Partial" not in Page(full_text).words
    real = msgspec.structs.replace(full, simulated=False, partial=True, stopped="interrupted")
    shown = Page(render(real)).words
    assert "Simulated endpoint" not in shown
    assert "simulator" not in shown
    assert "Real endpoint Partial" in shown
    made, _ = visits(real)
    assert f"{made} of " in shown
    assert "interrupted" in shown


def test_hostile_text_stays_text(full: Bench) -> None:
    """Wherever text comes from outside: escaped, its controls and direction marks named."""
    cell = make_closed(64, 2, [make_visit(1.0, 2.0, errors={HOSTILE: 2})])
    hostile = msgspec.structs.replace(
        full, model=HOSTILE, endpoint=HOSTILE, task=HOSTILE, input=HOSTILE, stopped=HOSTILE, partial=True,
        started_at=HOSTILE, notes=[HOSTILE], versions={HOSTILE: HOSTILE}, settings={HOSTILE: HOSTILE, "x": [HOSTILE]},
        planned=msgspec.structs.replace(full.planned, left_out=[HOSTILE]), closed=[*full.closed, cell],
    )  # fmt: skip
    text = render(hostile)
    assert not {"script", "img"} & set(Page(text).tags)
    assert not set(text) & set("\u202e\u2066\x1b")
    assert text.count("&lt;script&gt;alert") >= 11
    failed = msgspec.structs.replace(hostile, best=None, knees=[], closed=[cell], open=[])
    assert not set(render(failed)) & set("\u202e\u2066\x1b")


def test_without_the_plotting_library_the_rest_is_there(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plots show is still said, and every table is there."""
    monkeypatch.setitem(sys.modules, "engine.report.charts.canvas", None)  # as Python marks what cannot be imported
    text = render(full)
    shown = Page(text).words
    assert "<svg" not in text
    assert "pip install matplotlib and annotate report draw them" in shown
    assert "the knee is at" in shown
    assert "Every arrival rate" in shown


def test_every_plot_is_drawn_or_said_to_be_left_out(full: Bench, full_text: str) -> None:
    """None is lost."""
    shown = Page(full_text).words
    for make in PLOTS:
        plot = make(full)
        assert plot.title.lower() in shown.lower()
        assert isinstance(plot, Plot)


def test_a_page_can_be_drawn_again_from_its_figures(full: Bench, tmp_path: Path) -> None:
    """The same page from the file alone; another file is told apart, and a broken one named."""
    source = tmp_path / "bench.json"
    source.write_bytes(msgspec.json.encode(full))
    written = write_page(full, source)
    assert written == tmp_path / "bench.html"
    first = written.read_bytes()
    assert is_bench(tmp_path)
    assert is_bench(source)
    assert draw_again(tmp_path).read_bytes() == first
    (tmp_path / "other.json").write_text('{"report_version": 1}')
    assert not is_bench(tmp_path / "other.json")
    assert not is_bench(tmp_path / "none.json")
    source.write_text('{"bench_version": 1}')
    with pytest.raises(ConfigError, match="measure again"):
        draw_again(source)
