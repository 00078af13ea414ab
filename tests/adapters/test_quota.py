"""Limits that headers state are believed where they are a minute's, and not where they may be another period's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.adapters.providers.classify import classify
from engine.adapters.providers.quota import is_of_a_minute, read_quotas
from engine.vocabulary.values import Quota


@given(limit=st.integers(10, 1_000_000), share=st.floats(0.1, 1.0))
def test_a_bucket_of_a_minute_is_recognised(limit: int, share: float) -> None:
    """Whatever is used of it: it flows back at the limit's rate."""
    used = max(3, int(share * limit))
    assert is_of_a_minute(limit, limit - used, 60 * used / limit)


@given(
    limit=st.integers(10, 1_000_000), share=st.floats(0.0001, 1.0), period_s=st.sampled_from([1.0, 3_600.0, 86_400.0])
)
def test_another_period_is_not_taken_for_a_minute(limit: int, share: float, period_s: float) -> None:
    """A second's limit read as a minute's would make the run sixty times slower than it may be."""
    used = max(3, int(share * limit))
    assert not is_of_a_minute(limit, limit - used, period_s * used / limit)


def test_openai_s_headers_are_read() -> None:
    """As they come, in both dimensions, with spans as they are written."""
    headers = {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-remaining-requests": "540",
        "x-ratelimit-reset-requests": "6.0s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149000",
        "x-ratelimit-reset-tokens": "400ms",
    }
    assert read_quotas(headers) == (
        Quota(of="requests", per_minute=600, remaining=540),
        Quota(of="tokens", per_minute=150_000, remaining=149_000),
    )


def test_a_day_s_limit_under_the_same_name_is_left_out() -> None:
    """Groq's: 14,400 requests a day beside tokens a minute."""
    headers = {
        "x-ratelimit-limit-requests": "14400",
        "x-ratelimit-remaining-requests": "14370",
        "x-ratelimit-reset-requests": "2m59.56s",
        "x-ratelimit-limit-tokens": "18000",
        "x-ratelimit-remaining-tokens": "17000",
        "x-ratelimit-reset-tokens": "3.33s",
    }
    assert [quota.of for quota in read_quotas(headers)] == ["tokens"]


def test_a_name_that_says_the_minute_is_enough() -> None:
    """Mistral's and Cerebras's, which come without a reset."""
    headers = {"x-ratelimit-limit-req-minute": "60", "x-ratelimit-remaining-req-minute": "59"}
    assert read_quotas(headers) == (Quota(of="requests", per_minute=60, remaining=59),)


@pytest.mark.parametrize("text", ["", "nan", "inf", "-5", "0", "many", "1e300", "10, 10;w=60"])
def test_nonsense_is_no_limit(text: str) -> None:
    """An endpoint that lies here costs nothing."""
    names = ("limit", "remaining", "reset")
    assert read_quotas({f"x-ratelimit-{name}-requests": text for name in names}) == ()
    assert read_quotas({"x-ratelimit-limit-req-minute": text}) == ()


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000, Requested 2000.", "tokens"),
        ("Rate limit reached for gpt-4o on requests per min (RPM): Limit 3, Used 3, Requested 1.", "requests"),
        ("Too many concurrent requests", None),
        ("Rate limit reached. Please try again later.", None),
        ("requests per minute or tokens per minute exceeded", None),
    ],
)
def test_a_429_that_names_its_limit_is_understood(words: str, limit: str | None) -> None:
    """And one that does not is not guessed at."""
    body = b'{"error": {"message": "%s", "type": "requests", "code": "rate_limit_exceeded"}}' % words.encode()
    assert classify(429, {}, body, url="http://e/v1").limit == limit
