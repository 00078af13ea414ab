"""Pacing: no minute gets more than the limits, hardly less, in order, and never for ever."""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.adapters.limits import Pacer, Reservation
from engine.testing.virtual_time import on_virtual_time, run
from engine.vocabulary.config import Limits

MINUTE_S = 60.0
Start = tuple[float, int]

limits_per_minute = st.one_of(st.integers(1, 5), st.floats(1, 20), st.floats(20, 5_000), st.integers(100, 2_000_000))


async def starts_of(limits: Limits, sizes: Sequence[int]) -> list[Start]:
    """When a dispatcher that always has a next request starts each of them."""
    pacer = Pacer(limits)
    starts = []
    for size in sizes:
        await pacer.reserve(input_tokens=size, output_tokens=0)
        starts.append((anyio.current_time(), size))
    return starts


def fullest_minute(starts: Sequence[Start]) -> int:
    """The largest sum in any closed window of 60 s."""
    fullest = first = total = 0
    for at_s, size in starts:
        total += size
        while starts[first][0] < at_s - MINUTE_S:
            total -= starts[first][1]
            first += 1
        fullest = max(fullest, total)
    return fullest


def rate_per_minute(starts: Sequence[Start]) -> float:
    """Over the whole, the last request not counted: it fills time that is not ours."""
    return MINUTE_S * sum(size for _, size in starts[:-1]) / (starts[-1][0] - starts[0][0])


@settings(max_examples=60, deadline=None)
@given(rpm=limits_per_minute, count=st.integers(1, 300))
@example(rpm=1, count=5)
@example(rpm=2.5, count=20)
def test_no_minute_has_more_requests_than_the_limit(rpm: float, count: int) -> None:
    """In no 60 s window do more requests start than the limit says, the first minute included."""
    starts = run(starts_of, Limits(requests_per_minute=rpm), [1] * count)
    assert fullest_minute([(at_s, 1) for at_s, _ in starts]) <= rpm


@settings(max_examples=60, deadline=None)
@given(data=st.data(), tpm=limits_per_minute)
def test_no_minute_has_more_tokens_than_the_limit(data: st.DataObject, tpm: float) -> None:
    """In no 60 s window are more tokens charged than the limit says, for requests of any size up to the limit, most
    of them far larger than the bucket."""
    sizes = data.draw(st.lists(st.integers(1, math.floor(tpm)), min_size=1, max_size=60))
    assert fullest_minute(run(starts_of, Limits(tokens_per_minute=tpm), sizes)) <= tpm


@settings(max_examples=40, deadline=None)
@given(data=st.data(), rpm=st.floats(1, 300), tpm=st.integers(100, 100_000))
def test_both_limits_hold_together(data: st.DataObject, rpm: float, tpm: int) -> None:
    """A request admitted by one limit and kept by the other counts from its start, not from its admission."""
    sizes = data.draw(st.lists(st.sampled_from([1, tpm // 50, tpm // 3, tpm]), min_size=1, max_size=60))
    starts = run(starts_of, Limits(requests_per_minute=rpm, tokens_per_minute=tpm), sizes)
    assert fullest_minute(starts) <= tpm
    assert fullest_minute([(at_s, 1) for at_s, _ in starts]) <= rpm


@pytest.mark.parametrize("rpm", [1, 2, 3, 5, 10, 59, 60, 500, 3_000])
def test_the_request_limit_is_used(rpm: int) -> None:
    """In the long run at least 93 % of the requests that are allowed start, small limits included."""
    starts = run(starts_of, Limits(requests_per_minute=rpm), [1] * (rpm * 5 + 1))
    assert rate_per_minute(starts) >= 0.93 * rpm


@pytest.mark.parametrize(("tpm", "size"), [(1_000, 1), (10_000, 399), (90_000, 3_600), (2_000_000, 2_500), (600, 60)])
def test_the_token_limit_is_used(tpm: int, size: int) -> None:
    """In the long run at least 93 % of the tokens that are allowed are charged, while requests stay comfortable, and
    also above that where a whole number of them makes up the limit."""
    starts = run(starts_of, Limits(tokens_per_minute=tpm), [size] * (5 * tpm // size + 1))
    assert rate_per_minute(starts) >= 0.93 * tpm


def test_sizes_that_vary_use_the_token_limit_as_well() -> None:
    """A large request does not waste what smaller ones behind it could have used, beyond a few percent."""
    sizes = [400, 50, 3_000, 900, 10] * 200
    assert rate_per_minute(run(starts_of, Limits(tokens_per_minute=75_000), sizes)) >= 0.93 * 75_000


def test_requests_are_spread_over_the_minute() -> None:
    """No second carries more than its own share and a second's worth at once, so that an endpoint which enforces its
    limit by the second is content too."""
    starts = [at_s for at_s, _ in run(starts_of, Limits(requests_per_minute=600), [1] * 500)]
    assert max(sum(at_s <= other < at_s + 1 for other in starts) for at_s in starts) <= 21


def test_without_limits_nothing_waits() -> None:
    """No limit known: nothing is paced, and any request is comfortable."""
    starts = run(starts_of, Limits(), [10**9] * 100)
    assert starts[-1][0] - starts[0][0] < 0.1
    assert Limits().comfortable_tokens == math.inf


def test_comfortable_is_a_small_share_of_the_limit() -> None:
    """The packer is told to keep requests under 4 % of a minute's tokens."""
    assert Limits(tokens_per_minute=50_000).comfortable_tokens == pytest.approx(2_000)


def test_more_than_the_whole_limit_goes_alone_and_in_its_time() -> None:
    """A request above a minute's tokens is not waited for in vain: it goes alone, and the average still holds."""
    starts = run(starts_of, Limits(tokens_per_minute=100), [250] * 5)
    assert rate_per_minute(starts) <= 101
    assert rate_per_minute(starts) >= 93


@on_virtual_time
async def test_first_come_first_served() -> None:
    """A small request does not overtake a large one that waited before it."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    order: list[int] = []

    async def ask(name: int, size: int) -> None:
        await pacer.reserve(input_tokens=size, output_tokens=0)
        order.append(name)

    async with anyio.create_task_group() as tasks:
        for name, size in enumerate([900, 500, 1, 700, 2, 1]):
            tasks.start_soon(ask, name, size)
            await anyio.sleep(0.001)
    assert order == sorted(order)


@on_virtual_time
async def test_what_was_not_used_is_given_back() -> None:
    """Requests that use a tenth of what they reserve run at the pace of what they use."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    began = anyio.current_time()
    for _ in range(1_250):
        reservation = await pacer.reserve(input_tokens=40, output_tokens=0)
        reservation.settle(input_tokens=4, output_tokens=0)
    used_per_minute = 1_250 * 4 * MINUTE_S / (anyio.current_time() - began)
    assert 930 <= used_per_minute <= 1_250  # the opening bucket and the last minute's share


@on_virtual_time
async def test_what_is_given_back_wakes_who_waits() -> None:
    """A request that waits for the window goes as soon as another gives back enough, not when the window has moved."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    first = await pacer.reserve(input_tokens=1_000, output_tokens=0)
    began = anyio.current_time()

    async def finish() -> None:
        await anyio.sleep(5)
        first.settle(input_tokens=10, output_tokens=0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(finish)
        await pacer.reserve(input_tokens=40, output_tokens=0)
    assert anyio.current_time() - began == pytest.approx(5, abs=0.1)


@on_virtual_time
async def test_what_was_used_beyond_is_charged() -> None:
    """Requests that use twice what they reserve run at half the pace."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    began = anyio.current_time()
    for _ in range(200):
        reservation = await pacer.reserve(input_tokens=10, output_tokens=0)
        reservation.settle(input_tokens=10, output_tokens=10)
    used_per_minute = 200 * 20 * MINUTE_S / (anyio.current_time() - began)
    assert 930 <= used_per_minute <= 1_100


@settings(max_examples=60, deadline=None)
@given(
    tpm=st.integers(50, 50_000),
    requests=st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 300)), min_size=1, max_size=60),
)
def test_no_minute_has_more_tokens_than_the_limit_after_settlement(
    tpm: int, requests: list[tuple[float, float]]
) -> None:
    """What counts is the reservation while a request runs and what it used after: at no time does a 60 s window hold
    more of that than the limit, however long replies take and whatever they give back."""

    async def main() -> None:
        pacer = Pacer(Limits(tokens_per_minute=tpm))
        charged: list[list[float]] = []

        async def reply(entry: list[float], reservation: Reservation, used: int, latency_s: float) -> None:
            await anyio.sleep(latency_s)
            entry[1] = used
            reservation.settle(input_tokens=used, output_tokens=0)

        async with anyio.create_task_group() as tasks:
            for share, latency_s in requests:
                reserved = max(1, int(share * tpm))
                reservation = await pacer.reserve(input_tokens=reserved, output_tokens=0)
                now = anyio.current_time()
                charged.append([now, reserved])
                assert sum(amount for at_s, amount in charged if at_s >= now - MINUTE_S) <= tpm
                tasks.start_soon(reply, charged[-1], reservation, reserved * (reserved % 11) // 10, latency_s)

    run(main)


@on_virtual_time
async def test_a_long_run_does_not_drift() -> None:
    """After thousands of settlements of odd sizes nothing is left over: the ledger is whole numbers, and empties."""
    pacer = Pacer(Limits(tokens_per_minute=999.7))
    for number in range(3_000):
        reservation = await pacer.reserve(input_tokens=1 + number % 37, output_tokens=0)
        reservation.settle(input_tokens=(number * 7) % 41, output_tokens=0)
    await anyio.sleep(200)
    began = anyio.current_time()
    await pacer.reserve(input_tokens=39, output_tokens=0)
    assert anyio.current_time() - began == pytest.approx((39 / 999.7) * MINUTE_S - 0.5, abs=0.2)
    assert repr(pacer) == "Pacer([39 of 999.7 a minute, credit 0])"


@on_virtual_time
async def test_an_absurd_settlement_does_not_stop_the_run() -> None:
    """Usage that cannot be true costs a few minutes at most, not a week; and a gift of it is no licence either."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    reservation = await pacer.reserve(input_tokens=10, output_tokens=0)
    reservation.settle(input_tokens=100_000_000, output_tokens=0)
    with anyio.fail_after(5 * MINUTE_S):
        reservation = await pacer.reserve(input_tokens=10, output_tokens=0)
    reservation.settle(input_tokens=-100_000_000, output_tokens=0)
    reservation.settle(input_tokens=-100_000_000, output_tokens=0)
    starts = []
    for _ in range(100):
        await pacer.reserve(input_tokens=40, output_tokens=0)
        starts.append((anyio.current_time(), 40))
    assert fullest_minute(starts) <= 1_000


@on_virtual_time
async def test_waiting_can_be_cancelled() -> None:
    """Who gives up waiting leaves the queue, and the others are served."""
    pacer = Pacer(Limits(requests_per_minute=1, tokens_per_minute=100))
    await pacer.reserve(input_tokens=100, output_tokens=0)
    for wait_s in (1, 70):  # while it waits for a request, and, a request taken, for tokens
        with anyio.move_on_after(wait_s) as scope:
            await pacer.reserve(input_tokens=50, output_tokens=0)
        assert scope.cancelled_caught
    with anyio.fail_after(4 * MINUTE_S):
        await pacer.reserve(input_tokens=50, output_tokens=0)


@settings(max_examples=40, deadline=None)
@given(
    itpm=st.integers(100, 100_000),
    otpm=st.integers(100, 100_000),
    shares=st.lists(st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)), min_size=1, max_size=60),
)
def test_input_and_output_apart_hold_together(itpm: int, otpm: int, shares: list[tuple[float, float]]) -> None:
    """An endpoint that counts input and output apart gets no minute with more of either."""

    async def main() -> None:
        pacer = Pacer(Limits(input_tokens_per_minute=itpm, output_tokens_per_minute=otpm))
        inputs, outputs = [], []
        for of_input, of_output in shares:
            amounts = max(1, int(of_input * itpm)), max(1, int(of_output * otpm))
            await pacer.reserve(input_tokens=amounts[0], output_tokens=amounts[1])
            inputs.append((anyio.current_time(), amounts[0]))
            outputs.append((anyio.current_time(), amounts[1]))
        assert fullest_minute(inputs) <= itpm
        assert fullest_minute(outputs) <= otpm

    run(main)


@on_virtual_time
async def test_requests_that_end_out_of_order_leave_the_right_ones() -> None:
    """Of two requests with equal reservations the later one ends first, unused: in the minute after the first has
    left the window, only what the later one used is still counted."""
    pacer = Pacer(Limits(tokens_per_minute=1_000))
    first = await pacer.reserve(input_tokens=500, output_tokens=0)
    start_s = anyio.current_time()
    second = await pacer.reserve(input_tokens=500, output_tokens=0)
    assert anyio.current_time() - start_s > 10
    second.settle(input_tokens=0, output_tokens=0)
    first.settle(input_tokens=500, output_tokens=0)
    began = anyio.current_time()
    third = await pacer.reserve(input_tokens=500, output_tokens=0)
    assert anyio.current_time() - began < 5
    assert third.tokens_s < 5
    await pacer.reserve(input_tokens=500, output_tokens=0)
    assert anyio.current_time() - start_s <= 62  # the first leaves at 61; were the second counted instead, at 91


@on_virtual_time
async def test_what_a_request_might_have_put_out_stays_counted_where_input_and_output_count_together() -> None:
    """Providers charge input + max_tokens up front: unused output is no room for more. Apart, it is given back."""
    for limits, requests in (
        (Limits(tokens_per_minute=6_000), 60),
        (Limits(output_tokens_per_minute=6_000), 600),
    ):
        pacer = Pacer(limits)
        started = 0
        with anyio.move_on_after(2 * MINUTE_S):
            while True:
                reservation = await pacer.reserve(input_tokens=0, output_tokens=100)
                reservation.settle(input_tokens=0, output_tokens=10)
                started += 1
        assert started == pytest.approx(2 * requests, rel=0.05)


@settings(max_examples=40, deadline=None)
@given(given_back=st.floats(0, 1), size=st.integers(50, 2_000), latency_s=st.floats(0.1, 10))
def test_what_is_given_back_does_not_go_out_in_a_burst(given_back: float, size: int, latency_s: float) -> None:
    """No second carries more than its own share of the tokens, half a second's worth and one request, by what was used.

    Endpoints enforce a limit a minute by the second; a minute's worth of credit at once would be refused.
    """
    per_minute = 120_000

    async def starts() -> list[Start]:
        pacer, made = Pacer(Limits(input_tokens_per_minute=per_minute)), []
        used = round(size * (1 - given_back))

        async def later(reservation: Reservation) -> None:
            await anyio.sleep(latency_s)
            reservation.settle(input_tokens=used, output_tokens=0)

        async with anyio.create_task_group() as tasks:
            for _ in range(150):
                reservation = await pacer.reserve(input_tokens=size, output_tokens=0)
                made.append((anyio.current_time(), used))
                tasks.start_soon(later, reservation)
        return made

    made = run(starts)
    for index, (at_s, _) in enumerate(made):
        inside = sum(amount for start_s, amount in made[index:] if start_s < at_s + 1)
        assert inside <= per_minute / 60 * 1.5 + 2 * size
