"""What a plan says in words, on a terminal and on its page."""

from __future__ import annotations

from collections.abc import Iterator

from engine.decide.forecast import Forecast
from engine.report import words
from engine.tuning.document import Plan
from engine.tuning.voting import Voted

BOUND = {
    "rpm": "requests/min",
    "tpm": "tokens/min",
    "itpm": "input tokens/min",
    "otpm": "output tokens/min",
    "window": "requests in flight",
}


def headline(plan: Plan) -> str:
    """The whole in one sentence."""
    worth, alone = chosen(plan), plan.forecasts[0]
    if worth is alone and len(plan.forecasts) > 1:
        return "one record a request takes the fewest input tokens"
    less = words.share(1 - worth.requests / alone.requests, 1)
    return (
        f"{worth.batch_size} records a request save {words.share(worth.saved, 1)} of the input tokens and {less} of "
        "the requests"
    )


def _once(plan: Plan) -> str:
    return "each is asked once" if plan.votes is None else "copies share the votes"


def chosen(plan: Plan) -> Forecast:
    """The forecast at the batch size that is worth it."""
    return next(each for each in plan.forecasts if each.batch_size == plan.worth_it)


def corpus(plan: Plan) -> Iterator[str]:
    """What is to be labelled, and how it was counted."""
    copies = plan.records - plan.asked
    about = "about " if plan.counted < plan.asked else ""
    yield f"{words.plural(plan.records, 'record')} in {plan.input}" + (
        f", {about}{words.number(plan.asked)} of them different: {_once(plan)}" if copies > 0 else ""
    )
    how = "counted" if plan.counted >= plan.asked else f"counted in a sample of {words.number(plan.counted)}"
    static = plan.terms.static_tokens * plan.terms.input_ratio
    yield (
        f"a record takes {plan.record_tokens:.1f} input tokens ({how}) and some "
        f"{plan.terms.output_record:.1f} output tokens; every request {static:,.0f} besides, "
        f"r = {plan.static_share:.1f} for one"
    )
    if plan.terms.reasoning_call or plan.terms.reasoning_record:
        yield (
            f"before it answers, the model thinks for some {plan.terms.reasoning_call:,.0f} tokens a request and "
            f"{plan.terms.reasoning_record:,.0f} a record, paid for as output; {_less_thought(plan)}"
        )
    if plan.votes is not None:
        yield _votes(plan, plan.votes)
    if plan.learned is not None:
        ratio = f"it counts {plan.terms.input_ratio:.3f} tokens for one of ours, " if plan.learned.matched else ""
        yield (
            f"learned from {plan.learned.calls} calls of {plan.learned.sizes[0]} to {plan.learned.sizes[1]} records: "
            f"{ratio}and a request takes {_latency(plan)}"
        )


def _less_thought(plan: Plan) -> str:
    alone, worth = plan.forecasts[0], chosen(plan)
    less = 1 - worth.reasoning_tokens / max(1, alone.reasoning_tokens)
    return f"{worth.batch_size} records a request take {words.share(less, 1)} less of it than one"


_AGREEMENT = {
    "given": "as you say",
    "store": "as in the store",
    "assumed": "assumed: --vote-agreement, or --store of a run with votes, says better",
}


def _votes(plan: Plan, votes: Voted) -> str:
    """The range is what the rule allows; the number between goes with what the answers do."""
    rounds, worth = votes.rounds, chosen(plan)
    least, most = (worth.rounds.least / worth.rounds.expected, worth.rounds.most / worth.rounds.expected)
    tokens = worth.input_tokens + worth.output_tokens
    took = f"{words.number(round(least * tokens))} to {words.number(round(most * tokens))} tokens"
    usd = "" if worth.usd is None else f", {words.usd(least * worth.usd)} to {words.usd(most * worth.usd)}"
    between = f"between {rounds.least} and {rounds.most} times" if rounds.least < rounds.most else (
        f"{words.number(rounds.most)} times"
    )  # fmt: skip
    return (
        f"{votes.votes} votes ({votes.stop}) ask a record {between}, some {rounds.expected:.2f} where two of its "
        f"answers are the same in {words.share(votes.agreement, 1)} of the cases ({_AGREEMENT[votes.source]}); "
        f"{worth.batch_size} a request then take {took}{usd}"
    )


def _latency(plan: Plan) -> str:
    latency = plan.terms.latency
    if latency is None:
        return "an unknown time"
    return f"{words.seconds(latency.base_s)} and {words.seconds(latency.per_record_s)} a record"


def advice(plan: Plan) -> Iterator[str]:
    """What to make of it."""
    worth, most = chosen(plan), plan.forecasts[-1]
    if most.batch_size == 1 or most.saved <= 0:
        return
    of = "" if worth.batch_size == most.batch_size else (
        f", nine tenths of what {most.batch_size} would save ({words.share(most.saved, 1)})"
    )  # fmt: skip
    yield f"{headline(plan)}{of}."
    yield (
        "What a batch does to the labels cannot be told from counts: --batch-size auto (the default) finds out while "
        "it runs, and goes no further than the labels bear."
    )
