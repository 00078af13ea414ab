"""Parameters fitted to measurements: Qwen2.5-Coder-1.5B (4 bit) behind llama.cpp's server on one H100, temperature 0,
200 inputs a cell; and SmolLM2-135M on one CPU thread. Everything in this file is measured, or says on its line that it
is not; `.made_up` holds the rest.

The recording is not in this repository. ``python -m benchmarks.calibration --tape FOLDER --fit`` fits these numbers
anew; without ``--fit`` it prints what the profiles do beside what was measured. The model of the answers, and what its
least squares minimise, stand in that program.
"""

from __future__ import annotations

from .behaviour import BatchBehaviour, CopyTable, Redraw
from .latency import LinearLatency, load_row
from .rates import Rate, cliff, logistic, scaled, without

REPEAT_NOISE = 0.0025
"""Two asks of the same at temperature 0 agreed in .995 (agnews, B=1): each is struck with half of the rest. Taken for
the other tasks too, where it was not measured."""

AGNEWS_KEYED = BatchBehaviour(
    # .76 at B=10, .74 at B=20 (100 inputs, another wording), label repeated as often as the gold one: no copying.
    accuracy=0.75,
    noise=REPEAT_NOISE,
    redraw=Redraw(share={1: 0.0, 2: 0.1}, accuracy={1: 0.75}),  # not measured: that a tenth changes
)
"""Measured at B=10 and 20 only."""

AGNEWS_COMPACT = BatchBehaviour(
    accuracy=0.74,
    noise=REPEAT_NOISE,
    redraw=Redraw(
        favourite={1: 0.0, 2: 0.0, 5: 0.013, 10: 0.026, 20: 0.296, 40: 0.305},
        share={1: 0.0, 2: 0.33, 5: 0.40, 10: 0.23, 20: 0.40, 40: 0.76},
        accuracy={1: 0.74, 2: 0.653, 5: 0.587, 10: 0.400, 20: 0.890, 40: 0.329},
    ),
    copying=CopyTable(
        rows={
            1: [(2, 0.0)],
            2: [(2, 0.0)],
            5: [(2, 0.0), (3, 0.023)],
            10: [(2, 0.018), (3, 0.125), (6, 0.387)],
            20: [(2, 0.0), (3, 0.130), (6, 0.707), (11, 0.829)],
            40: [(2, 0.060), (3, 0.182), (6, 0.835), (11, 0.990), (21, 1.0)],
        }
    ),
    keyed=AGNEWS_KEYED,
)
"""Four labels. Answers copy the label before from B=10 on, and from B=20 on they fall into one label."""

AGNEWS_REWORDED = BatchBehaviour(
    accuracy=0.69,
    noise=REPEAT_NOISE,
    # .64 at B=10 and .45 at B=20; not measured: the share drawn anew, taken as a fifth.
    redraw=Redraw(share={1: 0.0, 10: 0.2}, accuracy={1: 0.69, 10: 0.44, 20: 0.465}),
    copying=CopyTable(rows={1: [(2, 0.0)], 10: [(2, 0.0)], 20: [(2, 0.52)]}),  # label repeated: .18 and .64
    keyed=AGNEWS_KEYED,
)
"""The same task and model, the items judged "each by itself" (100 inputs): it copies only from beyond B=10."""

SST2_KEYED = BatchBehaviour(accuracy=0.70, noise=REPEAT_NOISE)
"""Measured at B=20 only: the key that helps one task harms another."""

SST2_COMPACT = BatchBehaviour(
    accuracy=0.865,
    noise=REPEAT_NOISE,
    redraw=Redraw(
        share={1: 0.0, 2: 0.25, 5: 0.01, 10: 0.09, 20: 0.02, 40: 0.21},
        accuracy={1: 0.865, 2: 0.997, 5: 0.070, 10: 1.0, 20: 0.368, 40: 1.0},
    ),
    copying=CopyTable(
        rows={
            1: [(2, 0.0)],
            2: [(2, 0.182)],
            5: [(2, 0.257), (3, 0.279)],
            10: [(2, 0.191), (3, 0.228), (6, 0.470)],
            20: [(2, 0.507), (3, 0.470), (6, 0.614), (11, 0.644)],
            40: [(2, 0.656), (3, 0.575), (6, 0.719), (11, 0.947), (21, 0.971)],
        }
    ),
    keyed=SST2_KEYED,
)
"""Two labels. One order of the inputs was measured, so no favourite label can be told from chance."""

SST2_REWORDED = BatchBehaviour(
    accuracy=0.83,
    noise=REPEAT_NOISE,
    redraw=Redraw(share={1: 0.0, 20: 0.2}, accuracy={1: 1.0}),  # .87 at B=20; not measured: the share
    keyed=SST2_KEYED,
)
"""The same with the items judged "each by itself" (100 inputs): compact B=20 is as good as B=1."""

QWEN_SERVER = LinearLatency(
    (
        load_row(1, 17.95, 0.0528, 2.190, 0.055),
        load_row(2, 32.67, 0.0789, 2.901, 0.083),
        load_row(4, 56.34, 0.1127, 4.387, 0.108),
        load_row(8, 67.70, 0.1634, 6.925, 0.109),
        load_row(16, 156.4, 0.6225, 10.31, 0.086),
        load_row(32, 301.4, 1.140, 18.95, 0.105),
        load_row(64, 764.6, 2.630, 33.07, 0.128),
    )
)
"""R2 .997 .995 .992 .992 .988 .984 .962, RMSE 6 10 20 30 70 157 508 ms, over 308 to 825 requests a row. The variation
is the root mean square of the relative error of the fit, so what is left when the tokens are known. It never refuses,
it queues: about 1,000 output tokens/s from 8 in flight on."""

ANY_DEVIATION = logistic(-8.62, 1.17)
"""A reply that is not exactly what was asked for; 28 of 6,890 distinct prompts."""

LOST_ITEM = logistic(-10.67, 1.28)
"""One from which an item is missing; 6 of them."""

QWEN_FAULTS: dict[str, Rate] = {
    "extra": without(ANY_DEVIATION, LOST_ITEM),
    "trailing_comma": scaled(2 / 3, LOST_ITEM),
    "endless": scaled(1 / 3, LOST_ITEM),
}
"""Without a schema: results beyond those asked are the rule; of the rest 2 of 3 were broken, 1 endless."""

QWEN_SCHEMA_FAULTS: dict[str, Rate] = {"extra": without(ANY_DEVIATION, LOST_ITEM), "endless": LOST_ITEM}
"""A schema stops broken JSON, not endless lists; the number of results in it does (0 of 430)."""

SMOL_ANSWERS = BatchBehaviour(accuracy=0.41, noise=REPEAT_NOISE)
"""Right answers among those that could be read, at B = 1, 5, 10 (debate claims): .41 .42 .38. Noise not measured."""

SMOL_SERVER = LinearLatency((load_row(1, 0.0, 10.88, 25.88, 0.143),))
"""R2 .973, RMSE 347 ms, 184 requests one after the other; no constant part, as least squares would have it below 0."""

SMOL_BROKEN = logistic(-0.47, -0.67)
"""Broken JSON without a schema, five examples; 108 of 338 requests, nearly all of them at B=1."""

SMOL_SHORT = logistic(-7.15, 1.97)
"""A list that ends early, with as many results as the examples had: 3 of 18 requests with B > 1."""

SMOL_FAULTS: dict[str, Rate] = {
    "trailing_comma": scaled(11 / 18, SMOL_BROKEN),
    "endless": scaled(7 / 18, SMOL_BROKEN),
    "short": SMOL_SHORT,
    "extra": cliff(2, below=1.0, above=0.0),
}
"""At B=1 each reply that could be read had more results than asked: as many as the examples."""

SMOL_SCHEMA_FAULTS: dict[str, Rate] = {"extra": cliff(2, below=1.0, above=0.0)}
"""With a schema all 39 replies could be read."""
