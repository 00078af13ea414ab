"""How many tokens a request will take, learned from what the endpoint says it took.

Input: tiktoken's count times a learned ratio, since the endpoint's tokenizer is another one. Output: a prior from the
task's own answers until usage comes in, then mean plus two deviations of tokens per answered record. What a model
thinks before it answers is learned apart (`reasoning`): it goes by the request more than by the record.
"""

from __future__ import annotations

import math

from engine.decide.reasoning import Reasoning
from engine.vocabulary.values import Usage

ENTRY_TOKENS = 14
"""Tokens of the frame of one item, ``{"id":"k3f-1","input":},`` by o200k_base; its input comes on top."""

CALL_TOKENS = 16
"""Tokens of the frame of a request: roles, ``{"items":[]}``."""

_PRIOR_WEIGHT = 8.0  # records' worth of trust in the prior
_MEMORY = 2_000.0  # records after which an old observation has faded to 1/e
_SLACK = 1.25
_WHOLE, _WHOLE_SLACK, _WHOLE_CALL_OUTPUT = 50, 1.1, 24
"""Replies in a row that were not cut, after which less slack and room will do: where input and output count together,
what a reply might have put out is charged whether it does or not."""
_DOUBT = 3.5  # standard deviations that a request may take beyond what is expected of it
_PRIOR_SPREAD = (
    1.6  # variance of the ratio times tokens: 2 % in a request of 4,000. Measured: English 0.2, mixed kinds 8
)
_UNKNOWN = 1.15  # the ratio to be safe from before any reply: other tokenizers take up to so many more for prose
_CALL_OUTPUT = 48
_MAX_CALL_OUTPUT = 32_000
_ABSURD = 16.0  # times what was expected: a figure beyond is taken for this, so that one wrong one does little harm
_THOUGHT = 0.5  # of the output, from which on a reply that was cut was cut for its reasoning


class TokenEstimates:
    """Learned sizes of one task on one endpoint. Not thread-safe; owned by the pipeline."""

    def __init__(self, *, static_tokens: int, prior_output_tokens: float) -> None:
        """
        :param static_tokens: of the static prompt, by our own count.
        :param prior_output_tokens: expected output tokens of one record before anything is known.
        """
        self._static = static_tokens + CALL_TOKENS
        self._counted = self._charged = 100.0
        self._spread, self._replies = _PRIOR_SPREAD, 0.0
        self._weight = _PRIOR_WEIGHT
        self._mean = prior_output_tokens
        self._variance = (prior_output_tokens / 2) ** 2
        self._call_overhead = float(_CALL_OUTPUT)
        self._whole = 0
        self.reasoning = Reasoning()

    @classmethod
    def known(
        cls, *, static_tokens: int, input_ratio: float, output_mean: float, output_deviation: float,
        reasoning: Reasoning | None = None,
    ) -> TokenEstimates:  # fmt: skip
        """As after many replies that said this, for a forecast."""
        estimates = cls(static_tokens=static_tokens, prior_output_tokens=output_mean)
        estimates._charged, estimates._replies = input_ratio * estimates._counted, 1.0
        estimates._variance, estimates._weight, estimates._whole = output_deviation**2, _MEMORY, _WHOLE
        estimates.reasoning = reasoning or Reasoning()
        return estimates

    def __repr__(self) -> str:
        return (
            f"TokenEstimates(input_ratio={self.input_ratio:.3f}, output_per_record={self.output_per_record:.1f}, "
            f"call_overhead={self._call_overhead:.0f}, {self.reasoning!r})"
        )

    @property
    def input_ratio(self) -> float:
        """The endpoint's tokens for one of ours."""
        return self._charged / self._counted

    @property
    def output_per_record(self) -> float:
        """A high estimate of one record's output tokens: mean + 2 standard deviations, and room to reason about it."""
        return self._answer + self.reasoning.per_record

    @property
    def _answer(self) -> float:
        return self._mean + 2 * math.sqrt(self._variance)

    @property
    def call_overhead(self) -> float:
        """Output tokens that a call may need besides its records: the frame, and reasoning where there is any."""
        return self._call_overhead + self.reasoning.per_call

    @property
    def static_tokens(self) -> int:
        """Input tokens of a request without its items."""
        return math.ceil(self._static * self.input_ratio)

    def counted_input(self, entry_tokens: int) -> int:
        """A request's input by our own count, before the learned ratio."""
        return self._static + entry_tokens

    def input_tokens(self, entry_tokens: int) -> int:
        """Expected input tokens of a request whose entries count `entry_tokens` by our own count."""
        return math.ceil(self.counted_input(entry_tokens) * self.input_ratio)

    def most_input_tokens(self, entry_tokens: int) -> int:
        """Input tokens that a request will hardly exceed: the expectation and `_DOUBT` standard deviations."""
        return math.ceil(self._most(self.counted_input(entry_tokens)))

    def entry_room(self, input_tokens: float) -> int:
        """Entry tokens, by our own count, of a request that will hardly take more than `input_tokens` of theirs.

        The inverse of `most_input_tokens`: of r c + d sqrt(v c) = input, with ratio r, count c and spread v.
        """
        ratio, doubt = self._safe_ratio, _DOUBT * math.sqrt(self._spread)
        root = (math.sqrt(doubt * doubt + 4 * ratio * max(0.0, input_tokens)) - doubt) / (2 * ratio)
        return max(0, math.floor(root * root) - self._static)

    @property
    def _safe_ratio(self) -> float:
        return self.input_ratio if self._replies else max(_UNKNOWN, self.input_ratio)

    def _most(self, counted: float) -> float:
        return self._safe_ratio * counted + _DOUBT * math.sqrt(self._spread * counted)

    def output_tokens(self, records: int) -> int:
        """Expected output tokens of a request: what is reserved of the limit."""
        answers = records * self._answer + min(self._call_overhead, 4 * _CALL_OUTPUT) / 2
        return math.ceil(answers + self.reasoning.expected(records))

    def max_output_tokens(self, records: int, scale: float, cap: int) -> int:
        """What the request may put out at the most: the expectation with slack, so that honest replies fit."""
        slack, call = _SLACK, self._call_overhead
        if self._whole >= _WHOLE:
            slack, call = _WHOLE_SLACK, call - (_CALL_OUTPUT - _WHOLE_CALL_OUTPUT)
        wanted = (records * self._answer * slack + call + self.reasoning.most(records)) * scale
        return max(1, min(cap, math.ceil(wanted)))

    def observe(self, *, counted_input: int, usage: Usage, answered: int, cut: bool, asked: int = 0) -> None:
        """Learn from one reply. Whatever it says, every estimate stays finite and above zero.

        :param counted_input: what `counted_input` said of the request.
        :param answered: result objects in the reply.
        :param cut: the reply ended at its token limit.
        :param asked: records in the request; 0: as many as were answered.
        """
        if usage.estimated:
            return
        thought = cut and not answered and usage.reasoning_tokens > _THOUGHT * usage.output_tokens
        if not thought:
            self._whole = 0 if cut else self._whole + 1
        fade = math.exp(-1 / 50)
        charged = _between(counted_input / _ABSURD, usage.input_tokens, counted_input * _ABSURD)
        if self._replies:  # the first one says what the ratio is, and nothing of how it varies
            self._learn_spread((charged - self.input_ratio * counted_input) ** 2 / max(1, counted_input), fade)
        self._replies = self._replies * fade + 1
        self._counted = self._counted * fade + counted_input
        self._charged = self._charged * fade + charged
        said = max(0, usage.output_tokens - usage.reasoning_tokens)
        if thought:
            self.reasoning.observe_cut(max(1, asked), usage.output_tokens)
        elif answered or not cut:
            self.reasoning.observe(max(1, asked or answered), usage.reasoning_tokens)
        if answered:
            self._learn_output(said / answered, answered)
            self._learn_overhead(said)
        elif cut and not thought:
            # Not one answer before the limit: a model that thinks first. Give the call room, not each record.
            self._call_overhead = _between(2 * self._call_overhead, 2.0 * usage.output_tokens, _MAX_CALL_OUTPUT)

    def observe_unsaid(self, asked: int, output_tokens: int) -> None:
        """A reply was cut at so many tokens and shows nothing, and its endpoint counts nothing: it has thought."""
        self.reasoning.observe_cut(max(1, asked), output_tokens)

    def _learn_spread(self, squared: float, fade: float) -> None:
        """Variance of the ratio, times tokens: what tokens do at random averages out in large requests."""
        self._spread += (squared - self._spread) / (self._replies * fade + 1)

    def _learn_output(self, tokens_per_record: float, records: int) -> None:
        self._weight = min(self._weight + records, _MEMORY)
        share = min(1.0, records / self._weight)
        off = _between(1.0, tokens_per_record, _ABSURD * max(1.0, self.output_per_record)) - self._mean
        self._mean += share * off
        self._variance = (1 - share) * (self._variance + share * off * off)

    def _learn_overhead(self, output_tokens: int) -> None:
        """Let go of room that an answered reply did not need, or one endless reply would keep every batch small."""
        needed = _between(_CALL_OUTPUT, 2.0 * output_tokens, self._call_overhead)
        self._call_overhead += (needed - self._call_overhead) / 8


def _between(least: float, value: float, most: float) -> float:
    return min(max(least, value), most)
