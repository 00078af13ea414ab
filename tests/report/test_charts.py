"""What plots say is true of their figures, and what is drawn is nothing but shapes and text."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from engine.report.charts import inks
from engine.report.charts.axes import seconds_tick, tick
from engine.report.charts.canvas import svg
from engine.report.charts.control import last_minute, stairs
from engine.report.charts.gallery import together
from engine.report.charts.places import wilson
from engine.report.charts.svg import clean

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 10 20">'


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60), st.floats(0.5, 300.0))
def test_the_last_minute_is_a_sum_over_sixty_seconds(amounts: list[int], bin_s: float) -> None:
    """Never more than was sent in any 60 s, so that a limit which was kept is not shown as broken."""
    sums = last_minute(amounts, bin_s)
    assert len(sums) == len(amounts)
    for place, found in enumerate(sums):
        if bin_s >= 60.0:
            assert found == pytest.approx(amounts[place] * 60.0 / bin_s)
        else:
            back = int(60.0 / bin_s)
            assert found == sum(amounts[max(0, place - back + 1) : place + 1])


def test_a_value_that_moved_is_drawn_from_the_start_to_the_end() -> None:
    """What it was before the first move, each level, and where it ended; what was not known is left out."""
    assert stairs([(2.0, 4, 8), (5.0, 8, 6)], 6.0, 9.0) == [(0.0, 4), (2.0, 8), (5.0, 6), (9.0, 6.0)]
    assert stairs([(2.0, None, 300.0)], 310.0, 9.0) == [(2.0, 300.0), (9.0, 310.0)]
    assert stairs([], 16.0, 9.0) == [(0.0, 16.0), (9.0, 16.0)]
    assert stairs([], None, 9.0) == []


@given(st.integers(1, 1000), st.data())
def test_an_interval_of_a_share_holds_it(asked: int, data: st.DataObject) -> None:
    """Between 0 and 1, around what was seen, and narrower with more of it."""
    missed = data.draw(st.integers(0, asked))
    low, high = wilson(missed, asked)
    assert 0.0 <= low <= missed / asked + 1e-12
    assert missed / asked - 1e-12 <= high <= 1.0
    wider_low, wider_high = wilson(missed * 100, asked * 100)
    assert wider_high - wider_low < high - low


def test_a_drawing_keeps_shapes_and_text_only() -> None:
    """Scripts, handlers, links, styles of the page, foreign elements: none of it can come from a library's file."""
    drawn = f"""{HEAD}<metadata>made by</metadata><defs><style>* {{ color: red }}</style>
        <path id="m" d="M 0 0 L 1.23456 1"/>
        </defs><g id="a" onclick="x()"><script>x()</script><a xlink:href="http://e"><text x="1">inside</text></a>
        <use xlink:href="#m" x="3" y="4" style="fill: {inks.BLUE}; behavior: url(x)"/><use xlink:href="http://e#m"/>
        <image xlink:href="data:x"/><foreignObject><p>x</p></foreignObject>
        <text x="5" style="font: 700 11px 'DejaVu Sans', sans-serif; fill: {inks.SOFT}">a &lt; b</text></g></svg>"""
    page = Xml.fromstring(clean(drawn, 'a "label" <x>'))  # noqa: S314 - ours
    assert [element.tag for element in page.iter()] == ["svg", "g", "path", "text"]
    assert page.attrib == {"viewBox": "0 0 10 20", "role": "img", "aria-label": 'a "label" <x>'}
    path, text = page.find("g/path"), page.find("g/text")
    assert path is not None
    assert path.attrib == {"d": "M 0 0 L 1.2 1", "transform": "translate(3 4)", "style": "fill:var(--blue)"}
    assert text is not None
    assert (text.text, text.get("style")) == ("a < b", "font-size:11px;font-weight:700;fill:var(--soft)")


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co")), max_size=30))
def test_whatever_a_label_says_it_stays_its_text(label: str) -> None:
    """Dollars make no formula, angles no element; the text can be found and read aloud as it is."""
    shown = f"x{label}x"

    def draw(figure: Figure, narrow: bool) -> None:
        figure.text(0.1, 0.5, shown)

    page = Xml.fromstring(svg(draw, width=100, height=50, narrow=True, label=label))  # noqa: S314 - ours
    assert "".join("".join(element.itertext()) for element in page.iter("text")) == shown
    assert {element.tag for element in page.iter()} <= {"svg", "g", "text", "tspan", "path", "rect"}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (tick(0), "0"), (tick(0.25), "0.25"), (tick(40.0), "40"), (tick(1500), "1,500"), (tick(20_000), "20k"),
        (tick(12_500), "12.5k"), (tick(0.00002), "0.00002"), (seconds_tick(0.005), "5 ms"), (seconds_tick(2), "2 s"),
        (seconds_tick(180), "3 min"), (seconds_tick(7200), "2 h"),
    ],
)  # fmt: skip
def test_numbers_on_an_axis_are_short(said: str, expected: str) -> None:
    """As a person would write them."""
    assert said == expected


def test_a_figure_stays_with_its_unit() -> None:
    """No line begins with a percent sign."""
    assert together("95 % within 1 min 06 s, 3 minds") == "95\u00a0% within 1\u00a0min 06\u00a0s, 3 minds"
    assert not re.search(r"\d (?:%|ms)", together("12 ms, < 0.1 %"))
