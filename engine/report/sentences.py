"""What figures mean, in sentences: the headline of a run, and what each cause of trouble is."""

from __future__ import annotations

from engine.report import words
from engine.report.document import Report

CAUSES = {
    "rate-limit": "told to slow down (HTTP 429); everybody paused, then sent again",
    "server": "the server failed (HTTP 5xx); sent again",
    "transport": "the connection broke; sent again",
    "timeout": "no reply in time; sent again",
    "bad-reply": "the reply was no completion; sent again",
    "unsupported": "the endpoint does not take a request field; sent again without it",
    "auth": "the key was not accepted",
    "quota": "the quota or the credit is used up",
    "abandoned": "given up by a stop at once; the endpoint may bill it",
    "model": "the endpoint does not have this model",
    "context": "too long for the model's context; halved",
    "filtered": "a content filter refused the input; halved, so that only the guilty record pays",
    "rejected": "the endpoint rejected the request; halved",
    "refused": "the model refused; halved, so that only the guilty record pays",
    "overthought": "the output limit was used up by reasoning before any answer; sent again whole, with twice the room",
    "cut-off": "the reply was cut off at its token limit; complete answers kept, the rest halved",
    "invalid-output": "an answer outside the labels or of a wrong type; good ones kept, the rest asked again",
    "missing": "some records were left out of the reply; the others kept, these asked again",
    "no-json": "nothing in the reply was an answer in the format asked for; halved",
    "neighbours": "a record seems to have changed the answers to others; nothing of it accepted, halved",
    "too-long": "does not fit into a request of its own; never sent",
    "bad-record": "the input could not be used; never sent",
}

BINDING = {
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "window": "requests in flight at once",
    "pause": "pauses after refusals and errors",
}


def cause(name: str) -> str:
    """What a cause of failed attempts means, and what was done about it."""
    return CAUSES.get(name, "")


def failure(kind: str) -> str:
    """What a kind of failed record means: nothing more was done about it."""
    return cause(kind).partition(";")[0]


def headline(report: Report) -> str:
    """What was labelled, how well, by what, and in what time: one line for a person in a hurry."""
    records = report.records
    done = f"{words.number(records.ok)} of {words.plural(records.total, 'record')} labelled"
    if records.total:
        done += f" ({words.share(records.ok, records.total)})"
    failed = f", {words.number(records.failed)} failed" if records.failed else ""
    pending = f", {words.number(records.pending)} not reached" if records.pending else ""
    return f"{done}{failed}{pending}, with {words.visible(report.model)} in {words.duration(report.wall_s)}"


def pace(report: Report) -> str:
    """How fast and at what price; what earlier runs did is not counted in."""
    if not report.requests.total:
        return "Nothing was sent: every answer was in the store already." if report.records.ok else "Nothing was sent."
    throughput, latency = report.throughput, report.latency_s.record
    said = []
    if throughput.records_per_s is not None:
        said.append(f"{words.three_digits(throughput.records_per_s)} valid records a second")
    if latency.p50 is not None:
        said.append(
            f"half of them answered within {words.seconds(latency.p50)}, 95 % within {words.seconds(latency.p95)}"
        )
    if report.cost is not None:
        price = report.cost.per_1000_valid_usd
        each = "" if price is None else f" ({words.usd(price)} for 1,000 valid records)"
        second = report.escalation
        more = "" if second is None or not second.usd else f", and {words.usd(second.usd)} on the second model"
        said.append(f"{words.usd(report.cost.usd)} spent{each}{more}")
    sentence = "; ".join(said)
    return f"{sentence[:1].upper()}{sentence[1:]}." if said else ""


def price_source(report: Report) -> str:
    """Where the prices are from, and of when; nothing without any."""
    cost = report.cost
    if cost is None:
        return ""
    if cost.source is None:
        return "as given"
    return f"as of {words.visible(cost.as_of or 'a day unknown')} from {words.visible(cost.source)}, not checked since"
