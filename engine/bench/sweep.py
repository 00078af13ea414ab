"""The whole bench: warm-up, closed loop, arrival rates, each within the time that is left. See docs/design/bench.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import anyio
import msgspec

from engine.bench import figures, plan
from engine.bench.document import Best, ClosedPoint, OpenPoint, Totals
from engine.bench.figures import OpenVisit, Seen, Visit
from engine.bench.knee import Knee, Point, find_knee
from engine.bench.plan import Caps, Cell, Fitted, Grid, OpenCell
from engine.bench.runner import FATAL, BudgetLeft, Raw, Runner
from engine.report import words
from engine.vocabulary.config import Prices
from engine.vocabulary.errors import RunStopped

_WARM_SHARE = 0.2
"""Of the time, the most that the warm-up may take: what answers nothing in that is too slow to sweep."""
_RESERVE_S = 5.0
"""Of the time, left for the end: closing, writing, printing."""
_BARREN_VISITS = 4
"""Visits in a row without a valid record, after which the endpoint is taken for gone."""
_CLIENT_BOUND = 0.85
_MARGIN_S = 2.0
"""Between the end of a visit and the end of the time: its engine closes in between, so that what it sent is counted."""

Say = Callable[[str], None]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What the user wants measured.

    :ivar time_s: for everything; nothing is sent after it.
    :ivar target_p95_s: the latency target; None for none.
    """

    grid: Grid
    caps: Caps
    time_s: float
    target_p95_s: float | None = None
    prices: Prices | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None
    limits: figures.Limits = figures.Limits()
    seed: int = 0
    judge_client: bool = True


class Sweep:
    """A bench under way. What it has so far can be read at any time, so that a stop loses nothing.

    :ivar stopped: why it ended before its plan did; empty if it did not.
    """

    def __init__(self, runner: Runner, wishes: Wishes, *, say: Say) -> None:
        self._runner = runner
        self._wishes = wishes
        self._say = say
        self._latencies: dict[int, float] = {}
        self._observed: dict[Cell, float] = {}
        self._calls: list[Seen] = []
        self._closed: dict[Cell, list[Visit]] = {}
        self._open: dict[OpenCell, list[OpenVisit]] = {}
        self._ends_s = 0.0
        self._barren = 0
        self._visits = 0
        self._failed = 0
        self.visit_order: list[Cell] = []
        self.fitted = Fitted(grid=wishes.grid)
        self.stopped = ""
        self.notes: list[str] = []

    # -- the whole ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Measure everything that fits.

        :raises RunStopped: nothing works, so there is nothing to report.
        """
        self._ends_s = anyio.current_time() + self._wishes.time_s - _RESERVE_S
        with anyio.CancelScope(deadline=self._ends_s) as scope:
            try:
                await self._warm_up()
                if self._latencies:
                    await self._closed_loop()
                if self._closed and not self._is_over:
                    await self._open_loop()
            except RunStopped as error:
                if not self._closed:
                    raise
                self.stopped = str(error)
        if scope.cancelled_caught:
            self.stopped = self.stopped or "the time was over"
        if self._runner.is_stopped:
            self.stopped = "interrupted"
        self._note_client()

    @property
    def _is_over(self) -> bool:
        return self._runner.is_stopped or bool(self.stopped)

    @property
    def _left_s(self) -> float:
        return self._ends_s - anyio.current_time()

    # -- warm-up ---------------------------------------------------------------------------------------------------

    async def _warm_up(self) -> None:
        """A few requests of each batch size: connections open, prefix caches fill, and it shows how long one takes."""
        grid = self._wishes.grid
        failure: RunStopped | None = None
        ends_s = anyio.current_time() + _WARM_SHARE * self._wishes.time_s
        for number, size in enumerate(grid.batch_sizes):
            if self._runner.is_stopped:
                return
            left_s = ends_s - anyio.current_time()
            if left_s < max(self._latencies.values(), default=0.0):
                self.notes.append(f"batch size {size} is left out: no time for its warm-up")
                self._say(self.notes[-1])
                continue
            raw = await self._visit_closed(
                Cell(batch_size=size, concurrency=min(2, grid.concurrencies[-1])),
                requests=plan.WARM_REQUESTS, seconds=left_s, latency_s=left_s / 3, seed=-1 - number,
            )  # fmt: skip
            failure = raw.stopped or failure
            took = [call.ended_s - call.sent_s for call in raw.calls if call.accepted and call.size > size / 2]
            if took:
                self._latencies[size] = median(took[plan.PROBES :] or took)  # the first ones find everything cold
                self._say(f"warm-up: {size} a request, {self._latencies[size]:.3g} s")
            else:
                self.notes.append(
                    f"batch size {size} is left out: no such request was answered in the warm-up; {_why(raw)}"
                )
                self._say(self.notes[-1])
        if not self._latencies and not self._runner.is_stopped:
            raise failure or RunStopped("endpoint", f"nothing was answered in the warm-up. {'. '.join(self.notes)}")
        self._fit()

    def _fit(self) -> None:
        works = tuple(size for size in self._wishes.grid.batch_sizes if size in self._latencies)
        if not works:
            return
        grid = msgspec.structs.replace(self._wishes.grid, batch_sizes=works)
        self.fitted = plan.fit(grid, self._latencies, self._left_s, pause_s=self._runner.pause_s)
        if self.fitted.left_out:
            self._say(f"left out, to end in time: {'; '.join(self.fitted.left_out)}")
        if self.fitted.tight:
            self.notes.append(
                "the endpoint is so slow that even the smallest sweep wants more time: give more --minutes"
            )
            self._say(self.notes[-1])

    # -- closed loop -----------------------------------------------------------------------------------------------

    async def _closed_loop(self) -> None:
        grid, caps = self.fitted.grid, self._wishes.caps
        ends_s = anyio.current_time() + self._left_s * plan.closed_share(grid)
        for repeat in range(grid.repeats):
            left_s = ends_s - anyio.current_time()
            if repeat and not plan.repeats_that_fit(left_s, self._round_s(), 1):
                self.notes.append(f"{grid.repeats - repeat} of {grid.repeats} repeats are left out: no time")
                self._say(self.notes[-1])
                return
            cells = plan.order(grid.cells, repeat, self._wishes.seed)
            repeats_left = grid.repeats - repeat
            for number, cell in enumerate(cells):
                if self._is_over:
                    return
                needs_left = sum(map(self._need_s, cells[number:])) + (repeats_left - 1) * self._round_s()
                seconds = plan.allotted_s(
                    ends_s - anyio.current_time(), self._need_s(cell), needs_left, caps.visit_s
                )  # fmt: skip
                await self._one_closed(cell, repeat, seconds - self._runner.pause_s)

    async def _one_closed(self, cell: Cell, repeat: int, seconds: float) -> None:
        wishes = self._wishes
        raw = await self._visit_closed(
            cell, requests=plan.requests_at_most(cell.concurrency, wishes.caps), seconds=seconds,
            latency_s=self._latency_s(cell), seed=1_000 * repeat + len(self.visit_order),
        )  # fmt: skip
        visit = figures.closed_figures(
            raw.calls, raw.records, cell, repeat=repeat, target_s=wishes.target_p95_s, prices=wishes.prices,
            limits=wishes.limits, stopped=str(raw.stopped or ""), client_cpu_share=round(raw.client_cpu_share, 3),
        )  # fmt: skip
        if self._runner.is_stopped and visit.short:
            return  # cut off in the middle: it would stand for nothing
        self._closed.setdefault(cell, []).append(visit)
        self.visit_order.append(cell)
        if visit.request_latency_s.p50:
            self._observed[cell] = visit.request_latency_s.p50
        self._say(f"{self._count()} {cell}: {_told(visit, visit.request_latency_s.p95)}")
        self._judge(raw, visit)

    def _count(self) -> str:
        grid = self.fitted.grid
        total = grid.repeats * (len(grid.cells) + grid.open_count)
        done = len(self.visit_order) + sum(map(len, self._open.values()))
        return f"[{done}/{total}]"

    def _latency_s(self, cell: Cell) -> float:
        return self._observed.get(cell, self._latencies[cell.batch_size])

    def _need_s(self, cell: Cell) -> float:
        return plan.need_s(self._latency_s(cell), pause_s=self._runner.pause_s)

    def _round_s(self) -> float:
        return sum(map(self._need_s, self.fitted.grid.cells))

    # -- open loop -------------------------------------------------------------------------------------------------

    async def _open_loop(self) -> None:
        cells = self._open_cells()
        if not cells:
            return
        place = Cell(batch_size=cells[0].batch_size, concurrency=cells[0].concurrency)
        latency_s = self._latency_s(place)
        need = plan.open_need_s(latency_s, pause_s=self._runner.pause_s)
        repeats = plan.repeats_that_fit(self._left_s, need * len(cells), self.fitted.grid.repeats)
        while not repeats and len(cells) > 1:
            cells = cells[1:]  # the lowest rates say least
            repeats = plan.repeats_that_fit(self._left_s, need * len(cells), 1)
        if repeats < self.fitted.grid.repeats or len(cells) < self.fitted.grid.open_count:
            self.notes.append(
                f"open loop: {words.plural(repeats, 'repeat')} of {words.plural(len(cells), 'arrival rate')}, not "
                f"{self.fitted.grid.repeats} of {self.fitted.grid.open_count}: no time"
                if repeats
                else "the open loop is left out: no time"
            )
            self._say(self.notes[-1])
        for repeat in range(repeats):
            for number, cell in enumerate(plan.open_order(cells, repeat, self._wishes.seed)):
                if self._is_over:
                    return
                visits_left = (repeats - repeat) * len(cells) - number
                seconds = plan.allotted_s(self._left_s, need, need * visits_left, self._wishes.caps.visit_s)
                await self._one_open(cell, repeat, seconds - self._runner.pause_s, latency_s)

    def _open_cells(self) -> list[OpenCell]:
        best = self.best()
        if best is None:
            return []
        place = {"batch_size": best.batch_size, "concurrency": best.concurrency}
        grid = self.fitted.grid
        if grid.rates:
            return [OpenCell(records_per_s=rate, **place) for rate in sorted(grid.rates)]
        return [
            OpenCell(records_per_s=share * best.records_per_s, share=share, **place)
            for share in sorted(grid.rate_shares)
        ]

    async def _one_open(self, cell: OpenCell, repeat: int, seconds: float, latency_s: float) -> None:
        wishes = self._wishes
        place = Cell(batch_size=cell.batch_size, concurrency=cell.concurrency)
        await anyio.sleep(self._runner.pause_s)
        done = await self._runner.open(
            cell, records=plan.arrivals_at_most(place, wishes.caps),
            seconds=self._within(seconds), latency_s=latency_s, budget=self._budget_left(),
            seed=wishes.seed * 1_000_003 + 500_000 + 1_000 * repeat + self._visits,
        )  # fmt: skip
        self._calls += done.raw.calls
        self._visits += 1
        if not done.arrivals or (self._runner.is_stopped and len(done.arrivals) < 10):
            self._judge(done.raw, None)
            return
        visit = figures.open_figures(
            done.raw.calls[done.primer_calls :], done.arrivals, cell, started_s=done.started_s, seconds=done.seconds,
            repeat=repeat, target_s=wishes.target_p95_s, prices=wishes.prices, limits=wishes.limits,
            stopped=str(done.raw.stopped or ""), client_cpu_share=round(done.raw.client_cpu_share, 3),
        )  # fmt: skip
        self._open.setdefault(cell, []).append(visit)
        self._say(f"{self._count()} {cell}: {_told(visit.figures, visit.figures.record_latency_s.p95)}")
        self._judge(done.raw, visit.figures)

    # -- one visit -------------------------------------------------------------------------------------------------

    async def _visit_closed(
        self, cell: Cell, *, requests: int, seconds: float, latency_s: float, seed: int
    ) -> Raw:  # fmt: skip
        if self._visits:
            await anyio.sleep(self._runner.pause_s)
        raw = await self._runner.closed(
            cell, requests=requests, seconds=self._within(seconds), latency_s=latency_s,
            budget=self._budget_left(), seed=self._wishes.seed * 1_000_003 + seed,
        )  # fmt: skip
        self._calls += raw.calls
        self._failed += sum(not record.ok for record in raw.records)
        self._visits += 1
        if raw.stopped is not None and raw.stopped.kind in FATAL and not self._closed:
            raise raw.stopped
        return raw

    def _within(self, seconds: float) -> float:
        return max(0.1, min(seconds, self._left_s - _MARGIN_S))

    def _judge(self, raw: Raw, visit: Visit | None) -> None:
        """Whether to go on: an error of one cell is that cell's, unless no other would escape it."""
        if raw.stopped is not None and raw.stopped.kind in FATAL:
            self.stopped = self._why_stopped(raw.stopped)
            return
        self._barren = 0 if visit is not None and visit.records_ok else self._barren + 1
        if self._barren >= _BARREN_VISITS and not self._runner.is_stopped:
            self.stopped = f"the endpoint has answered nothing in {self._barren} cells: {_why(raw)}"

    def _budget_left(self) -> BudgetLeft:
        """For the next visit, whose store knows of no other. Nothing left is a budget that no request fits in."""
        usd, tokens = self._wishes.budget_usd, self._wishes.budget_tokens
        if usd is not None:
            usd = max(1e-12, usd - figures.spent_usd(self._calls, self._wishes.prices, worst=True))
        if tokens is not None:
            tokens = max(1, tokens - figures.spent_tokens(self._calls))
        return BudgetLeft(usd=usd, tokens=tokens)

    def _why_stopped(self, stopped: RunStopped) -> str:
        """In words. What a visit says of a budget is of what was left for it."""
        if stopped.kind != "budget":
            return str(stopped)
        usd, tokens = self._wishes.budget_usd, self._wishes.budget_tokens
        budgets = [] if usd is None else [f"${usd:g} (--budget-usd)"]
        budgets += [] if tokens is None else [f"{tokens:,} tokens (--budget-tokens)"]
        return f"the budget of {' and '.join(budgets)} leaves no room for the next request"

    # -- what it came to -------------------------------------------------------------------------------------------

    @property
    def latencies_s(self) -> dict[int, float]:
        """Batch size -> seconds of a request in the warm-up."""
        return dict(self._latencies)

    def totals(self) -> Totals:
        """Everything that was sent so far."""
        calls, prices = self._calls, self._wishes.prices
        return Totals(
            visits=self._visits,
            requests=len(calls),
            records_ok=sum(call.accepted for call in calls),
            records_failed=self._failed,
            input_tokens=sum(call.input_tokens for call in calls),
            cached_tokens=sum(call.cached_tokens for call in calls),
            output_tokens=sum(call.output_tokens for call in calls),
            wasted_tokens=sum(call.tokens for call in calls if not call.accepted),
            usd=None if prices is None else round(figures.spent_usd(calls, prices), 9),
            worst_usd=None if prices is None else round(figures.spent_usd(calls, prices, worst=True), 9),
        )

    def closed_points(self) -> list[ClosedPoint]:
        """The curve."""
        return [
            ClosedPoint(
                batch_size=cell.batch_size,
                concurrency=cell.concurrency,
                summary=figures.summary(self._closed[cell]),
                visits=self._closed[cell],
            )
            for cell in sorted(self._closed)
        ]

    def open_points(self) -> list[OpenPoint]:
        """The arrival rates."""
        return [
            OpenPoint(
                records_per_s=cell.records_per_s,
                share=cell.share,
                batch_size=cell.batch_size,
                concurrency=cell.concurrency,
                offered_per_s=figures.spread(visit.offered_per_s for visit in visits),
                unanswered=sum(visit.unanswered for visit in visits),
                arrivals=sum(visit.arrivals for visit in visits),
                late=any(map(figures.is_late, visits)),
                summary=figures.summary([visit.figures for visit in visits]),
                visits=visits,
            )
            for cell, visits in sorted(self._open.items())
        ]

    def best(self) -> Best | None:
        """The cell to run with."""
        by = "records_per_s" if self._wishes.target_p95_s is None else "goodput_per_s"
        return best_of(self.closed_points(), by) or best_of(self.closed_points(), "records_per_s")

    def knees(self) -> list[Knee]:
        """Of each batch size that has one."""
        return knees_of(self.closed_points())

    def _note_client(self) -> None:
        """Where this process was busy most of the time, the figures are of it and not of the endpoint."""
        if not self._wishes.judge_client:
            return
        busy = sorted(
            str(cell)
            for cell, visits in self._closed.items()
            if median(visit.client_cpu_share or 0.0 for visit in visits) > _CLIENT_BOUND
        )
        if busy:
            self.notes.append(f"this client's CPU was busy, so the endpoint may do more: {'; '.join(busy)}")


def best_of(points: Sequence[ClosedPoint], by: str) -> Best | None:
    """The point with the most of one figure; of equals the one with the fewest in flight."""
    best: Best | None = None
    for point in sorted(points, key=lambda point: (point.concurrency, point.batch_size)):
        found, all_of_it = getattr(point.summary, by), point.summary.records_per_s
        if found is None or all_of_it is None or found.median <= (best.value if best else 0.0):
            continue
        best = Best(
            batch_size=point.batch_size, concurrency=point.concurrency, by=by,
            records_per_s=all_of_it.median, value=found.median,
        )  # fmt: skip
    return best


def knees_of(points: Sequence[ClosedPoint]) -> list[Knee]:
    """The knee of each batch size that has one."""
    sizes = sorted({point.batch_size for point in points})
    found = [find_knee(size, [_point(point) for point in points if point.batch_size == size]) for size in sizes]
    return [knee for knee in found if knee is not None]


def _point(point: ClosedPoint) -> Point:
    rate, latency = point.summary.records_per_s, point.summary.request_latency_s.get("p50")
    return Point(
        concurrency=point.concurrency,
        records_per_s=rate.median if rate else 0.0,
        latency_s=latency.median if latency else None,
    )


def _told(visit: Visit, p95_s: float | None) -> str:
    latency = "no answer" if p95_s is None else f"p95 {p95_s:.3g} s"
    trouble = f"; {', '.join(f'{count} {name}' for name, count in visit.errors.items())}" if visit.errors else ""
    short = "; short" if visit.short else ""
    return f"{visit.records_per_s:.4g} records/s, {latency}{short}{trouble}"


def _why(raw: Raw) -> str:
    if raw.stopped is not None:
        return str(raw.stopped)
    causes = sorted({call.outcome for call in raw.calls if call.outcome != "ok"})
    return f"outcomes: {', '.join(causes)}" if causes else "no reply came in time"
