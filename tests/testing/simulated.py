"""Requests and readings for the tests of the simulator, made by hand so that they share nothing with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.testing.simulator import Plan, SimulatedEndpoint, SimulatorConfig, build_endpoint

LABELS = ["red", "green", "blue"]


def make_endpoint(**settings: Any) -> SimulatedEndpoint:
    """An endpoint with three labels that answers at once, unless told otherwise."""
    return build_endpoint(SimulatorConfig(**{"labels": LABELS, "delay_s": 0.0, **settings}))


def chat_body(inputs: Sequence[Any], *, system: str = "Answer in JSON.", salt: str = "k3f", **settings: Any) -> bytes:
    """A request as the contract has it."""
    items = [{"id": f"{salt}-{number}", "input": value} for number, value in enumerate(inputs, start=1)]
    line = json.dumps({"items": items}, separators=(",", ":"), ensure_ascii=False)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": line}]
    return json.dumps({"model": "m", "messages": messages, **settings}).encode()


def schema_of(output: Any, **keys: Any) -> dict[str, Any]:
    """A response_format for results with this output and these keys before it."""
    properties = {"id": {"type": "string"}, **keys, "output": output}
    result = {"type": "object", "properties": properties}
    schema = {"type": "object", "properties": {"results": {"type": "array", "items": result}}}
    return {"type": "json_schema", "json_schema": {"name": "results", "strict": True, "schema": schema}}


def ask(endpoint: SimulatedEndpoint, body: bytes, *, now: float = 0.0, **headers: str) -> Plan:
    """One whole request."""
    plan = endpoint.begin(body, headers, now)
    endpoint.end(plan, now + plan.delay_s)
    return plan


def document(plan: Plan) -> Any:
    """The body of a reply."""
    return json.loads(plan.body)


def content(plan: Plan) -> str:
    """The content of the model's message."""
    assert plan.status == 200
    text = document(plan)["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def results(plan: Plan) -> list[dict[str, Any]]:
    """The results of a reply that is whole."""
    made = json.loads(content(plan))["results"]
    assert isinstance(made, list)
    return made


def finish_reason(plan: Plan) -> str:
    """Why the model stopped."""
    return str(document(plan)["choices"][0]["finish_reason"])
