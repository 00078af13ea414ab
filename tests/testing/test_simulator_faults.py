"""Each fault leaves its mark, strikes when it may, and never makes a wrong label undetectable."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated import LABELS, ask, chat_body, content, document, finish_reason, make_endpoint, results

from engine.testing.simulator import ALL_FAULTS, FaultRates, Plan, between, cliff, logistic, stable_label
from engine.testing.simulator.rates import CALL_FAULTS, RECORD_FAULTS
from engine.testing.simulator.tokens import count

TEXTS = [f"text number {number}" for number in range(10)]
IDS = [f"k3f-{number}" for number in range(1, 11)]
TRUTH = {id_: stable_label(text, LABELS) for id_, text in zip(IDS, TEXTS, strict=True)}
WHOLE = content(ask(make_endpoint(), chat_body(TEXTS)))


def _struck(fault: str, *, seed: int = 0) -> Plan:
    """The reply to ten texts, the second request, with one fault for certain."""
    endpoint = make_endpoint(faults={fault: 1.0}, delay_s=1.0, seed=seed)
    ask(endpoint, chat_body(TEXTS[::-1], salt="old"))
    plan = ask(endpoint, chat_body(TEXTS))
    assert endpoint.ledger.strikes[fault] > 0
    assert set(endpoint.ledger.strikes) == {fault}
    return plan


@pytest.mark.parametrize(("fault", "status"), [("http_429", 429), ("http_500", 500), ("http_502_html", 502)])
def test_server_faults(fault: str, status: int) -> None:
    """The status, the wait, and HTML where a proxy speaks."""
    plan = _struck(fault)
    assert plan.status == status
    assert ("Retry-After" in plan.headers) == (status == 429)
    assert (plan.headers["Content-Type"] == "text/html") == (status == 502)


@pytest.mark.parametrize(("fault", "action"), [("reset", "reset"), ("hang", "hang"), ("cut_body", "cut_body")])
def test_connection_faults(fault: str, action: str) -> None:
    """They are left to the front to perform."""
    assert _struck(fault).action == action


def test_bad_envelopes_do_not_parse() -> None:
    """Over some seeds: half a document, and a page of HTML."""
    bodies = [_struck("bad_envelope", seed=seed).body for seed in range(8)]
    assert {body[:1] for body in bodies} == {b"{", b"<"}
    for body in bodies:
        with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
            json.loads(body)


def test_delay_is_tenfold() -> None:
    """Of the latency of the profile."""
    assert _struck("delay").delay_s == pytest.approx(10.0)


def test_text_faults() -> None:
    """A cut says so; fence and prose leave the document whole inside; order changes, content not."""
    cut = _struck("cut")
    assert finish_reason(cut) == "length"
    assert WHOLE.startswith(content(cut))
    assert 0 < len(content(cut)) < len(WHOLE)
    assert content(_struck("fence")) == f"```json\n{WHOLE}\n```"
    assert WHOLE in content(_struck("prose"))
    assert content(_struck("prose")) != WHOLE
    reordered = results(_struck("reorder"))
    assert [result["id"] for result in reordered] != IDS
    assert {result["id"]: result["output"] for result in reordered} == TRUTH


def test_slight_breaks_do_not_parse_but_hold_every_answer() -> None:
    """Over some seeds four kinds, none of them JSON."""
    texts = {content(_struck("trailing_comma", seed=seed)) for seed in range(24)}
    assert len(texts) == 4
    for text in texts:
        with pytest.raises(ValueError, match=r"Expecting|Illegal"):
            json.loads(text)
        assert all(id_ in text for id_ in IDS)


def test_refusals_have_no_content() -> None:
    """Both of the forms that OpenAI has."""
    choices = [document(_struck("refuse", seed=seed))["choices"][0] for seed in range(8)]
    assert {(choice["finish_reason"], choice["message"]["refusal"] is None) for choice in choices} == {
        ("stop", False), ("content_filter", True),
    }  # fmt: skip
    assert all(choice["message"]["content"] is None for choice in choices)


def test_record_faults() -> None:
    """At rate 1 each strikes all ten records."""
    assert results(_struck("drop")) == []
    twice = results(_struck("duplicate"))
    assert [(result["id"], result["output"]) for result in twice] == [pair for pair in TRUTH.items() for _ in "ab"]
    values: dict[str, set[str]] = {id_: set() for id_ in IDS}
    for result in results(_struck("conflict")):
        values[result["id"]].add(result["output"])
    assert all(len(found) == 2 and found <= set(LABELS) for found in values.values())
    assert all(result["output"] not in LABELS for result in results(_struck("off_label")))
    foreign = results(_struck("foreign_id"))
    assert len(foreign) == 20
    extra = {result["id"] for result in foreign[10:]}
    assert not extra & set(IDS)
    assert any(id_.startswith("old-") for id_ in extra)


def test_special_faults() -> None:
    """The reply of the request before; the request's own items; two ids exchanged; a list without end."""
    assert [result["id"] for result in results(_struck("stale"))] == [f"old-{number}" for number in range(1, 11)]
    assert content(_struck("echo_items")) == document_line()
    swapped = {result["id"]: result["output"] for result in results(_struck("swap"))}
    assert sum(swapped[id_] != TRUTH[id_] for id_ in IDS) == 2
    endpoint = make_endpoint(faults={"endless": 1.0})
    plan = ask(endpoint, chat_body(TEXTS, max_tokens=500))
    assert (count(content(plan)), finish_reason(plan)) == (500, "length")
    assert content(plan).startswith(WHOLE[:-2])


def document_line() -> str:
    """The last line of the request."""
    return str(json.loads(chat_body(TEXTS))["messages"][1]["content"])


def test_a_swap_takes_the_key_along() -> None:
    """So that it can be detected in keyed answers: the key belongs to the output, not to the id."""
    inputs = ["one a b", "two a b", "three a b", "four a b", "five a b"]
    wrong = []
    for result in results(ask(make_endpoint(mode="swap"), chat_body(inputs, system='"starts" in JSON'))):
        assert result["output"] == stable_label(result["starts"], LABELS)
        if result["starts"] != inputs[int(result["id"].removeprefix("k3f-")) - 1]:
            wrong.append(result["id"])
    assert len(wrong) == 2


def test_every_fault_is_covered_here() -> None:
    """A new fault needs a test, and `all` leaves out only what must be named."""
    assert set(FaultRates.all(0.1).rates) == set(CALL_FAULTS) | set(RECORD_FAULTS)
    assert set(ALL_FAULTS) - set(FaultRates.all(0.1).rates) == {
        "endless", "extra", "short", "babble", "swap", "stale", "echo_items",
    }  # fmt: skip


@pytest.mark.parametrize("fault", ALL_FAULTS)
def test_first_sends_then_peace(fault: str) -> None:
    """With first_sends=2 the first two sends are struck and the third is right."""
    endpoint = make_endpoint(faults={fault: 1.0}, strike="first_sends=2", max_tokens_field="either")
    struck = []
    for _ in range(3):
        before = endpoint.ledger.strikes.total()
        plan = ask(endpoint, chat_body(TEXTS))
        struck.append(endpoint.ledger.strikes.total() > before)
    assert struck == ([False, True, False] if fault == "stale" else [True, True, False])
    assert {result["id"]: result["output"] for result in results(plan)} == TRUTH


def test_one_old_record_shields_the_call_but_not_its_mates() -> None:
    """A call fault must not strike a record sent more often; a record fault still strikes the new ones beside it."""
    endpoint = make_endpoint(faults={"fence": 1.0, "drop": 1.0}, strike="first_sends=1")
    ask(endpoint, chat_body(["old"]))
    plan = ask(endpoint, chat_body(["old", "new"]))
    assert results(plan) == [{"id": "k3f-1", "output": stable_label("old", LABELS)}]


def test_rates_are_met() -> None:
    """Over many calls, a fault strikes as often as its rate says."""
    endpoint = make_endpoint(faults={"http_500": 0.2, "drop": 0.1})
    for _ in range(2000):
        ask(endpoint, chat_body(TEXTS))
    strikes = endpoint.ledger.strikes
    assert strikes["http_500"] == pytest.approx(400, abs=80)
    assert strikes["drop"] == pytest.approx(1600, abs=160)


def test_the_same_seed_strikes_the_same() -> None:
    """A failure can be replayed."""

    def bodies(seed: int) -> list[bytes]:
        endpoint = make_endpoint(faults=FaultRates.all(0.3), seed=seed)
        return [ask(endpoint, chat_body(TEXTS)).body for _ in range(20)]

    assert bodies(1) == bodies(1)
    assert bodies(1) != bodies(2)


def test_rates_may_depend_on_batch_and_time() -> None:
    """Shapes for profiles: smooth in log2 B, a cliff, a bad hour."""
    rates = FaultRates(
        {"drop": logistic(-8.62, 1.17), "cut": cliff(16, above=0.9), "prose": between(10, 20, cliff(4, above=0.5))}
    )
    assert rates.of("drop", 20, 0) == pytest.approx(0.0275, rel=0.05)
    assert [rates.of("cut", size, 0) for size in (15, 16)] == [0.0, 0.9]
    assert [rates.of("prose", 4, at) for at in (9, 10, 19, 20)] == [0.0, 0.5, 0.5, 0.0]
    assert rates.of("prose", 3, 15) == 0.0


def _strict_answers(plan: Plan) -> dict[str, Any]:
    """What a strict client takes from the text: whole result objects, asked ids, known labels, one value an id."""
    if plan.status != 200 or plan.action != "respond":
        return {}
    try:
        text = document(plan)["choices"][0]["message"]["content"] or ""
    except ValueError:
        return {}
    values: dict[str, set[str]] = {}
    at = text.find('{"id"')
    while at >= 0:
        try:
            result, _ = json.JSONDecoder().raw_decode(text, at)
        except ValueError:
            result = {}
        if result.get("id") in TRUTH:
            values.setdefault(result["id"], set()).add(json.dumps(result.get("output")))
        at = text.find('{"id"', at + 1)
    answers = {id_: json.loads(next(iter(found))) for id_, found in values.items() if len(found) == 1}
    return {id_: value for id_, value in answers.items() if isinstance(value, str) and value in LABELS}


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rate=st.sampled_from([0.1, 0.3, 0.6]),
    max_tokens=st.sampled_from([None, 60, 150, 250]),
)
def test_no_mixture_of_faults_makes_a_wrong_label_look_right(seed: int, rate: float, max_tokens: int | None) -> None:
    """A strict reader never takes a wrong label, or the engine's "0 mislabelled" could not be asked for."""
    endpoint = make_endpoint(faults=FaultRates.all(rate), seed=seed)
    extra = {} if max_tokens is None else {"max_tokens": max_tokens}
    for salt in ("old", "k3f"):
        answers = _strict_answers(ask(endpoint, chat_body(TEXTS, salt=salt, **extra)))
    assert answers.items() <= TRUTH.items()


@pytest.mark.parametrize("settings", [{"faults": {"conflict": 1.0, "cut": 1.0}}, {"faults": {"conflict": 1.0}}])
def test_a_cut_never_leaves_the_wrong_one_of_two_answers(settings: dict[str, Any]) -> None:
    """Neither a cut by fault nor one at max_tokens: a lone wrong answer could not be told from a right one."""
    kept = 0
    for seed in range(30):
        plan = ask(make_endpoint(seed=seed, **settings), chat_body(TEXTS, max_tokens=100 + seed))
        assert finish_reason(plan) == "length"
        answers = _strict_answers(plan)
        assert answers.items() <= TRUTH.items()
        kept += len(answers)
    assert kept > 0


def test_foreign_ids_are_never_asked_ones() -> None:
    """Also where a client uses its ids again, as many do: what nobody asked for must not become an answer."""
    endpoint = make_endpoint(faults={"foreign_id": 1.0})
    for _ in range(20):
        found = Counter(result["id"] for result in results(ask(endpoint, chat_body(TEXTS))))
        assert [found[id_] for id_ in IDS] == [1] * 10


@pytest.mark.parametrize("poison", ["drop", "off_label", "break"])
def test_poison_always_works_and_spares_the_others(poison: str) -> None:
    """The poisoned record never gets a valid answer; only `break` takes its batch mates with it."""
    endpoint = make_endpoint(poison_marker="number 3", poison=poison, strike="first_sends=1")
    for _ in range(3):
        answers = _strict_answers(ask(endpoint, chat_body(TEXTS)))
        assert answers == ({} if poison == "break" else {id_: TRUTH[id_] for id_ in IDS if id_ != "k3f-4"})
    assert endpoint.ledger.strikes == {"poison": 3}


@pytest.mark.parametrize("mode", ["never_format", "stale", "echo_items"])
def test_modes_never_answer(mode: str) -> None:
    """No id of this request gets a label, however often one asks."""
    endpoint = make_endpoint(mode=mode)
    ask(endpoint, chat_body(TEXTS[:5], salt="old"))
    for _ in range(2):
        plan = ask(endpoint, chat_body(TEXTS, salt="k3f" if mode != "stale" else "new"))
        assert _strict_answers(plan) == {}


def test_off_label_spoils_objects_too() -> None:
    """Over some seeds: a field, or the whole output."""
    schema = {"properties": {"a": {"enum": LABELS}, "b": {"type": "integer"}}}
    kinds: Counter[str] = Counter()
    for seed in range(20):
        endpoint = make_endpoint(output_schema=schema, labels=(), faults={"off_label": 1.0}, seed=seed)
        output = results(ask(endpoint, chat_body(["x"])))[0]["output"]
        whole = isinstance(output, dict) and set(output) == {"a", "b"}
        kinds["field" if whole else "output"] += 1
        assert not (whole and output["a"] in LABELS and isinstance(output["b"], int))
    assert min(kinds["field"], kinds["output"]) > 0
