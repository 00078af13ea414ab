"""The endpoint without faults: what it answers, and what it refuses in whose words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulated import LABELS, ask, chat_body, content, document, finish_reason, make_endpoint, results, schema_of

from engine.testing.simulator import stable_label, stable_output
from engine.testing.simulator.tokens import count

TEXTS = ["the first text of all of them", "another", "", "{\"items\":[]} 🙂 'quoted'"]


def test_every_item_is_answered_in_order_with_its_id() -> None:
    """The contract's reply, and the answer that a test can compute for itself."""
    plan = ask(make_endpoint(), chat_body(TEXTS))
    expected = [{"id": f"k3f-{n}", "output": stable_label(text, LABELS)} for n, text in enumerate(TEXTS, start=1)]
    assert results(plan) == expected
    assert finish_reason(plan) == "stop"


def test_answers_do_not_depend_on_batch_mates_ids_or_seed() -> None:
    """One right answer to a text, whatever the request."""
    one = results(ask(make_endpoint(seed=1), chat_body(TEXTS)))
    other = results(ask(make_endpoint(seed=2), chat_body(TEXTS[::-1], salt="zzz")))
    assert [result["output"] for result in one] == [result["output"] for result in other[::-1]]


def test_an_oracle_is_obeyed() -> None:
    """It sees the input, string or object."""
    endpoint = make_endpoint(oracle=lambda value: value["text"].upper())
    assert results(ask(endpoint, chat_body([{"text": "abc"}])))[0]["output"] == "ABC"


def test_the_schema_of_the_request_is_filled() -> None:
    """Extra string keys repeat the first five words, before the output; the output follows its schema."""
    output = {
        "type": "object",
        "properties": {"tone": {"type": "string", "enum": ["up", "down"]}, "n": {"type": "integer"}},
    }
    body = chat_body(["one two three four five six"], response_format=schema_of(output, starts={"type": "string"}))
    (result,) = results(ask(make_endpoint(labels=()), body))
    assert list(result) == ["id", "starts", "output"]
    assert result["starts"] == "one two three four five"
    assert result["output"] == stable_output("one two three four five six", output)


def test_the_words_of_the_prompt_can_ask_for_the_key() -> None:
    """Without a schema, `"starts"` in the system message is enough; an endpoint may ignore it."""
    body = chat_body(["one two"], system='Give "id", "starts", "output" in JSON.')
    assert results(ask(make_endpoint(), body))[0]["starts"] == "one two"
    assert "starts" not in results(ask(make_endpoint(follows_form=False), body))[0]


def test_a_plain_string_schema_does_not_hide_the_labels() -> None:
    """Label sets too large for a schema come as a plain string; the endpoint's own labels then count."""
    body = chat_body(["a"], response_format=schema_of({"type": "string"}))
    assert results(ask(make_endpoint(), body))[0]["output"] in LABELS


def test_other_clients_get_an_answer_too() -> None:
    """Prose for a chat, JSON for a schema of their own, parts of content as well as a string."""
    parts = [{"type": "text", "text": "hello"}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": parts}]}).encode()
    assert content(ask(make_endpoint(), body)).startswith("I am a simulated model")
    format_ = {"type": "json_schema", "json_schema": {"schema": {"properties": {"n": {"type": "integer"}}}}}
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "response_format": format_}).encode()
    assert isinstance(json.loads(content(ask(make_endpoint(), body)))["n"], int)
    assert content(ask(make_endpoint(labels=()), chat_body(["a"]))).startswith("I am a simulated model")


NO_WORD = {"role": "user", "content": "x"}

REFUSED: list[tuple[dict[str, Any], dict[str, Any], int, str | None, str | None]] = [
    ({"model": "other"}, {}, 404, "model_not_found", None),
    ({"api_key": "k"}, {}, 401, "invalid_api_key", None),
    ({"mode": "always_400"}, {}, 400, None, None),
    ({}, {"stream": True}, 400, "unsupported_value", "stream"),
    ({"max_tokens_field": "max_completion_tokens"}, {"max_tokens": 9}, 400, "unsupported_parameter", "max_tokens"),
    ({"max_tokens_field": "max_tokens"}, {"max_completion_tokens": 9}, 400, None, None),
    ({}, {"max_tokens": 0}, 400, None, "max_tokens"),
    ({"takes_temperature": False}, {"temperature": 0}, 400, "unsupported_value", "temperature"),
    ({"schema_support": "json_object"}, {"response_format": schema_of({})}, 400, None, "response_format"),
    ({"schema_support": "none"}, {"response_format": {"type": "json_object"}}, 400, None, "response_format"),
    ({}, {"response_format": {"type": "json_object"}, "messages": [NO_WORD]}, 400, None, "messages"),
    ({"context_tokens": 100}, {"max_tokens": 99}, 400, "context_length_exceeded", "messages"),
    ({"quota_tokens": 0}, {}, 429, "insufficient_quota", None),
    ({}, {"messages": []}, 400, None, None),
    ({}, {"response_format": 7}, 400, None, "response_format"),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "extra", "status", "code", "param"), REFUSED)
def test_refusals(
    settings: dict[str, Any], extra: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """Each rule has its status, code and parameter; nothing is billed."""
    endpoint = make_endpoint(**settings)
    plan = ask(endpoint, chat_body(["a"], **extra))
    error = document(plan)["error"]
    assert (plan.status, error["code"], error["param"]) == (status, code, param)
    assert error["message"]
    assert endpoint.ledger.by_status == {status: 1}
    assert endpoint.ledger.prompt_tokens == 0


def test_what_is_no_json_is_a_400() -> None:
    """Broken bytes are the client's fault, not a crash."""
    assert ask(make_endpoint(), b'{"messages": [').status == 400
    assert ask(make_endpoint(), b"\xff\xfe").status == 400


JSON_VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["schema", "properties", "results", "items", "output", "type", "enum"]), inner
        )
    ),
    max_leaves=12,
)


@given(schema=JSON_VALUES, value=JSON_VALUES)
def test_no_request_crashes_the_endpoint(schema: Any, value: Any) -> None:
    """Whatever stands in the schema or for an input, there is an answer or an error in the proper shape."""
    format_ = {"type": "json_schema", "json_schema": {"schema": schema}}
    for body in (
        chat_body([value]),
        chat_body(["a"], response_format=format_),
        chat_body(["a"], response_format=value),
    ):
        plan = ask(make_endpoint(), body)
        assert plan.status in (200, 400)
        assert ("error" in document(plan)) == (plan.status == 400)


def test_the_same_requests_pass_where_they_are_allowed() -> None:
    """The rules refuse no more than they say."""
    endpoint = make_endpoint(api_key="k", model="m", max_tokens_field="max_completion_tokens", takes_temperature=False)
    body = chat_body(["a"], max_completion_tokens=50, temperature=1, response_format={"type": "json_object"})
    assert ask(endpoint, body, Authorization="Bearer k").status == 200


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_replies_are_cut_at_max_tokens(limit: int) -> None:
    """At just so many tokens by the endpoint's own count, and it says so."""
    whole = content(ask(make_endpoint(), chat_body(TEXTS)))
    plan = ask(make_endpoint(), chat_body(TEXTS, max_tokens=limit))
    assert whole.startswith(content(plan))
    assert count(content(plan)) == limit == document(plan)["usage"]["completion_tokens"]
    assert finish_reason(plan) == "length"


def test_a_reply_that_just_fits_is_not_cut() -> None:
    """Off by one would make every well-sized batch a failure."""
    whole = content(ask(make_endpoint(), chat_body(TEXTS)))
    plan = ask(make_endpoint(), chat_body(TEXTS, max_tokens=count(whole)))
    assert (content(plan), finish_reason(plan)) == (whole, "stop")


def test_usage_adds_up_and_can_be_absent() -> None:
    """Usage and ledger tell the same tokens."""
    endpoint = make_endpoint()
    usage = document(ask(endpoint, chat_body(TEXTS)))["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert (endpoint.ledger.prompt_tokens, endpoint.ledger.completion_tokens) == (
        usage["prompt_tokens"], usage["completion_tokens"],
    )  # fmt: skip
    assert "usage" not in document(ask(make_endpoint(usage=False), chat_body(TEXTS)))


@pytest.mark.parametrize(
    ("rule", "words", "cached"), [("openai", 2000, 1920), ("openai", 100, 0), ("exact", 100, None)]
)
def test_the_prefix_is_cached_after_the_first_reply(rule: str, words: int, cached: int | None) -> None:
    """From 1,024 tokens in steps of 128, or token by token; another prefix is another entry."""
    endpoint = make_endpoint(cache=rule)

    def cached_tokens(system: str) -> int:
        usage = document(ask(endpoint, chat_body(["a"], system=system)))["usage"]
        return int(usage["prompt_tokens_details"]["cached_tokens"])

    system = "word " * words
    whole = count(system) + 4
    assert cached_tokens(system) == 0
    assert cached_tokens(system) == (whole if cached is None else cached)
    assert cached_tokens("x " + system) == 0


def test_requests_at_once_do_not_help_each_other() -> None:
    """What is cached is known only when the first reply is done."""
    endpoint = make_endpoint(cache="exact")
    first = endpoint.begin(chat_body(["a"]), {}, 0.0)
    second = endpoint.begin(chat_body(["b"]), {}, 0.0)
    endpoint.end(first, 1.0)
    endpoint.end(second, 1.0)
    assert endpoint.ledger.cached_tokens == 0
    ask(endpoint, chat_body(["c"]))
    assert endpoint.ledger.cached_tokens > 0


def test_the_ledger_counts_sends_of_texts_not_of_ids() -> None:
    """A record is its text: sent again under another id, in another batch, or refused, it counts again."""
    endpoint = make_endpoint(context_tokens=10_000)
    ask(endpoint, chat_body(["a", "b"]))
    ask(endpoint, chat_body(["b", {"x": 1}], salt="qqq"))
    ask(endpoint, chat_body(["b"], max_tokens=20_000))
    ledger = endpoint.ledger
    assert [ledger.sends_of(value) for value in ("a", "b", {"x": 1}, "c")] == [1, 3, 1, 0]
    assert ledger.as_dict()["records"] == {"distinct": 3, "sends": 5, "resent": 1, "most_sends": 3}
    assert ledger.by_status == {200: 2, 400: 1}


def test_unknown_names_are_refused() -> None:
    """A typo in a set-up must not run as something else."""
    for wrong in ({"latency": "x"}, {"faults": {"x": 1.0}}, {"mode": "x"}, {"strike": "x"}, {"cache": "x"}):
        with pytest.raises(ValueError, match="x"):
            make_endpoint(**wrong)
