"""What a search tells of its settings: real sizes, why one was stopped, what is saved beside what, and the plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_tune import ended, make_gold, search

from engine.cli.tune_text import print_tuned
from engine.decide.quality_stats import Interval
from engine.decide.racing import Race, Rule, looks
from engine.testing.simulator.behaviour import BatchBehaviour, Redraw
from engine.testing.simulator.command import SimulatorConfig, build_endpoint
from engine.tuning import tune_sentences as sentences
from engine.tuning.page.tune_front import cost_ticks, front_plot
from engine.tuning.page.tune_html import render
from engine.tuning.space import Setting, Space
from engine.tuning.tune_document import Row, Tuned


def row(setting: Setting, score: float, **changes: Any) -> Row:
    """One setting's line, made up."""
    plain: dict[str, Any] = {
        "setting": setting, "records": 100, "failed": 0, "score": score,
        "interval": Interval(low=score - 0.05, high=score + 0.05), "requests": 100, "input_per_record": 100.0,
        "cached_per_record": 0.0, "output_per_record": 10.0, "usd_per_1000": None, "cost_per_record": 140.0,
        "malformed": 0, "latency_s": 1.0, "on_front": False, "running": True, "broken": None,
    }  # fmt: skip
    return Row(**plain | changes)


def tuned(rows: list[Row], dimensions: list[str], **changes: Any) -> Tuned:
    """A search that ended with these rows, made up; the last is the choice."""
    plain: dict[str, Any] = {
        "tune_version": 1, "task": "t", "gold": "g", "model": "m", "metric": "accuracy", "margin": 0.03,
        "confidence": 0.95, "records": 100, "unusable": 0, "rows": rows, "dimensions": dimensions,
        "chosen": len(rows) - 1, "best": 0, "threatening": None, "is_clear": True, "behind": 0.0, "at_most": 0.0,
        "gold_needed": 100, "spent_tokens": 1, "spent_usd": None, "grid_tokens": 1.0, "prices": None, "options": [],
        "stopped": None, "stop_kind": None, "notes": [],
    }  # fmt: skip
    return Tuned(**plain | changes)


def test_a_batch_size_that_no_request_reached_is_told_with_its_mean(tmp_path: Path) -> None:
    """Of 12 gold records no request holds 40: the table, the page and the sentence say what it was measured with."""
    space = Space(batch_size=(4, 40), form=("compact",), examples=(0,))
    done = ended(search(tmp_path, build_endpoint(SimulatorConfig()), gold=make_gold(12), space=space))
    four, forty = sorted(done.rows, key=lambda row: row.setting.batch_size)
    assert four.mean_size is not None
    assert forty.mean_size is not None
    assert 1 < four.mean_size <= 4
    assert 4 < forty.mean_size <= 12
    assert sentences.named(done, forty).startswith("40 (mean ")
    assert "40 (mean " in render(done)


def test_every_stopped_setting_is_told_why() -> None:
    """No gain beside a cheaper one that is as good; worse than a dearer one by more than the margin."""
    scores = [[1.0] * 300, [1.0] * 300, [0.0] * 300]
    race = Race([10, 20, 5], at=looks(300), rule=Rule())
    while wanted := race.wanted():
        asked = {k: wanted.get(k, race._pairs.records(k)) for k in range(3)}
        race.told([scores[k][: asked[k]] for k in range(3)])
    stops = [race.stop_of(k) for k in range(3)]
    assert stops[0] is None
    assert stops[1] is not None
    assert (stops[1].by, stops[1].is_worse) == (0, False)
    assert stops[2] is not None
    assert (stops[2].by in (0, 1), stops[2].is_worse) == (True, True)


def test_why_a_setting_was_stopped_stands_in_table_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a search in which larger batches are thirty points worse."""
    behaviour = BatchBehaviour(accuracy=0.9, redraw=Redraw(share={1: 0.0, 5: 1.0}, accuracy={1: 0.6}))
    done = ended(search(tmp_path, build_endpoint(SimulatorConfig(behaviour=behaviour)), gold=make_gold(300)))
    five = next(each for each in done.rows if each.setting.batch_size == 5)
    assert five.is_worse
    assert five.stopped_by is not None
    assert done.rows[five.stopped_by].setting.batch_size == 1
    assert "worse than 1 a request" in render(done)
    print_tuned(done)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.split()[0:1] == ["5"])
    assert line.rstrip().endswith("worse")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("budget", "used up. The same command with more of it goes on, and pays for nothing twice"),
        ("interrupted", "used up. The same command goes on, and pays"),
        ("auth", "used up. Once that is mended, the same command goes on"),
    ],
)
def test_what_to_do_after_an_early_end_goes_by_its_cause(kind: str, said: str) -> None:
    """The same command would meet the same wall."""
    plain = Setting(batch_size=1, examples=0, form="compact")
    made = tuned([row(plain, 0.8)], [], stopped="used up", stop_kind=kind)
    assert any(said in line for line in sentences.why(made))


def test_what_a_choice_saves_is_said_beside_the_same_with_one_a_request() -> None:
    """And beside the best with one a request, which may show more examples: that is no saving of the batch."""
    rows = [
        row(Setting(batch_size=1, examples=20, form="compact"), 0.90, input_per_record=1000.0),
        row(Setting(batch_size=1, examples=0, form="compact"), 0.85, input_per_record=200.0),
        row(Setting(batch_size=5, examples=0, form="compact"), 0.88, input_per_record=150.0),
    ]
    said = next(line for line in sentences.why(tuned(rows, ["batch_size", "examples"])) if line.startswith("It takes"))
    assert "25.0 % fewer than one record a request and all else equal (1 a request, 0 examples: 0.850" in said
    assert "85.0 % fewer than the best setting with one record a request (1 a request, 20 examples: 0.900" in said
    both = sentences.why(tuned(rows[1:], ["batch_size", "examples"]))
    assert next(line for line in both if line.startswith("It takes")).count("fewer") == 1


@given(st.floats(1e-6, 1e5), st.floats(1.1, 1e4), st.sampled_from([5, 9]))
def test_a_cost_axis_has_round_numbers_however_little_it_shows(low: float, times: float, most: int) -> None:
    """Two to so many of them, of three digits at the most, rising, within what is shown."""
    ticks = cost_ticks(low, low * times, most=most)
    assert 2 <= len(ticks) <= most
    assert ticks == sorted(set(ticks))
    assert [float(f"{each:.3g}") for each in ticks] == pytest.approx(ticks, rel=1e-5)
    assert all(low * (1 - 1e-9) <= each <= low * times * (1 + 1e-9) for each in ticks)


def test_the_plot_tells_settings_apart_that_differ_in_anything(tmp_path: Path) -> None:
    """Variables together and apart have looks of their own; what a third dimension changes is said to look alike."""
    base = Setting(batch_size=5, examples=0, form="compact")
    rows = [
        row(msgspec.structs.replace(base, variables=variables, wording=wording, temperature=temperature), 0.8)
        for variables in ("together", "one-by-one") for wording in ("own", "short") for temperature in (0.0, 1.0)
    ]  # fmt: skip
    made = tuned(rows, ["wording", "variables"])
    page = render(made)
    for name in ("wording own, variables together", "wording short, variables one-by-one"):
        assert name in page
    plot = front_plot(tuned(rows, ["wording", "temperature", "variables"]))
    assert "Settings that differ in variables look alike here" in getattr(plot, "note", "")


def test_a_higher_estimate_than_the_best_is_explained() -> None:
    """The best is one of those that were asked most."""
    rows = [
        row(Setting(batch_size=1, examples=0, form="compact"), 0.8, records=600),
        row(Setting(batch_size=2, examples=0, form="compact"), 0.89, records=50),
        row(Setting(batch_size=5, examples=0, form="compact"), 0.79, records=600),
    ]
    heading = getattr(front_plot(tuned(rows, ["batch_size"])), "heading", "")
    assert "the best is 0.800 on 600 records (higher ones, up to 0.890, are less well known)" in heading
    assert "higher ones" not in getattr(front_plot(tuned([rows[0], rows[2]], ["batch_size"])), "heading", "")
