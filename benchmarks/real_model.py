"""The article's table on a real model: batch size x number of examples x answer form, on records with known labels.

python -m benchmarks.real_model --name NAME (--data FILE.json | --task TASK.toml --input FILE --gold FILE)
    [--records 200] [--batch-sizes 1,2,5,10,20] [--examples 0,5,20] [--forms compact,keyed] [--margin .10] [--seed 0]
    [--base-url URL --model NAME | --model-path FILE.gguf] [--work FOLDER] [--results benchmarks/results]

Without --base-url: the embedded model. ``--data`` takes a labelled public set as JSON (Definition, labels,
positive_examples, Instances with input and output); the examples come first from the task, then from records that are
measured nowhere. The whole grid is asked, and no setting is dropped: `annotate tune` is for choosing. Settings take
turns, a quarter of the records at a time and in a new order each time. Answers are kept under --work; the same command
goes on where it was. No valid answer counts as a wrong one; a record is asked for once more by itself before that. A
setting whose replies make no sense is stopped by the run's own brake, as everywhere: its other records count as wrong.

The rule for the choice: of the settings whose accuracy is shown to be no more than --margin below that of the best
one with one input a call (paired, 95 % one-sided, Agresti and Min 2005), the one with the fewest weighted tokens
(an output token counted four times).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from benchmarks.common import versions
from engine import Endpoint, RunConfig, Task, load_task
from engine.adapters.files import FileSource
from engine.adapters.local import LOCAL_MODEL_NAME, local_model
from engine.decide.racing_pairs import Pairs
from engine.decide.scores import exact, mean_within, metric_of, pareto_front
from engine.run.compose import EMBEDDED, fitted, with_environment_key
from engine.tuning.gold import read_gold
from engine.tuning.space import Setting, Space, settings_of, task_of
from engine.tuning.trial import Means, Trial, Use
from engine.vocabulary.config import Limits, Recovery
from engine.vocabulary.task import Example
from engine.vocabulary.values import RawRecord

_Z = 1.645  # 95 %, one-sided
_ROUNDS = 4
_OUTPUT_WEIGHT = 4.0


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One setting, and what came of it."""

    setting: Setting
    use: Use
    answers: list[Any]
    seconds: float
    stopped: str | None

    @property
    def weighted(self) -> float:
        """Input and output tokens, the latter four times as dear."""
        return self.use.input + _OUTPUT_WEIGHT * self.use.output


def main() -> None:
    """Run the grid, print the table, and write it."""
    options = _options()
    task, records, gold = _loaded(options)
    space = Space(batch_size=tuple(options.batch_sizes), examples=tuple(options.examples), form=tuple(options.forms))
    measured, model = anyio.run(_measure, options, task, space, records)
    document = _document(options, task, model, measured, gold)
    _show(document)
    file = Path(options.results) / f"{options.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {file}")


async def _measure(
    options: argparse.Namespace, task: Task, space: Space, records: Sequence[dict[str, Any]]
) -> tuple[list[Measured], str]:
    rng = random.Random(options.seed)
    async with _means(options) as means:
        settings = settings_of(space, task)
        trials = [Trial(setting, task_of(setting, task, space), means) for setting in settings]
        answers: list[list[Any]] = [[] for _ in trials]
        seconds = [0.0] * len(trials)
        for turn in range(1, _ROUNDS + 1):
            upto = len(records) * turn // _ROUNDS
            for k in rng.sample(range(len(trials)), len(trials)):
                since = time.monotonic()
                answers[k] = await trials[k].ask(records[:upto], left_usd=None, left_tokens=None)
                seconds[k] += time.monotonic() - since
                print(f"{turn}/{_ROUNDS} {trials[k].setting}: {seconds[k]:.0f} s", file=sys.stderr, flush=True)
        measured = [
            Measured(setting=trial.setting, use=trial.use(), answers=given, seconds=took, stopped=trial.broken)
            for trial, given, took in zip(trials, answers, seconds, strict=True)
        ]
        return measured, means.model


@contextlib.asynccontextmanager
async def _means(options: argparse.Namespace) -> AsyncIterator[Means]:
    config = RunConfig(recovery=Recovery(lone_attempts=1), limits=Limits(max_concurrency=options.max_concurrency))
    folder = Path(options.work)
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    if options.base_url:
        endpoint = with_environment_key(Endpoint(base_url=options.base_url, model=options.model, temperature=0.0))
        yield Means(endpoint=endpoint, model=endpoint.model, is_embedded=False, config=config, folder=folder)
        return
    async with local_model(options.model_path) as local:
        endpoint = msgspec.structs.replace(
            EMBEDDED, base_url=local.base_url, model=LOCAL_MODEL_NAME, exact_count=True, temperature=0.0
        )
        config = fitted(config, slots=local.slots, context_tokens=local.context_tokens)
        yield Means(endpoint=endpoint, model=local.name, is_embedded=True, config=config, folder=folder)


# -- what is measured ------------------------------------------------------------------------------------------------


def _loaded(options: argparse.Namespace) -> tuple[Task, list[dict[str, Any]], list[Any]]:
    """The task with examples enough, and records that are none of them, with their gold."""
    task, raws = _from_data(options.data) if options.data else _from_files(options)
    read = read_gold(raws, task, name=options.data or options.gold, field="gold", seed=options.seed)
    names = task.input or [key for key in read.records[0] if key != "id"]
    wanted = max(options.examples) - len(task.examples)
    held, rest = _apart(read.outputs, max(0, wanted))
    more = [
        Example(
            input=read.records[k][names[0]] if len(names) == 1 else {key: read.records[k][key] for key in names},
            output=read.outputs[k],
        )
        for k in held
    ]
    kept = rest[: options.records]
    task = msgspec.structs.replace(task, examples=[*task.examples, *more])
    return task, [read.records[k] for k in kept], [read.outputs[k] for k in kept]


def _apart(outputs: Sequence[Any], count: int) -> tuple[list[int], list[int]]:
    """So many records for examples, the outputs by turns, and the others."""
    groups: dict[bytes, list[int]] = {}
    for k, output in enumerate(outputs):
        groups.setdefault(msgspec.json.encode(output, order="sorted"), []).append(k)
    by_turns = [group[turn] for turn in range(len(outputs)) for group in groups.values() if turn < len(group)]
    held = by_turns[:count]
    return held, [k for k in range(len(outputs)) if k not in set(held)]


def _from_data(file: str) -> tuple[Task, list[RawRecord]]:
    """A labelled public set. One text may stand in it twice, and is taken once."""
    data = json.loads(Path(file).read_text())
    texts = {each["input"]: each["output"] for each in data["Instances"]}
    labels = [str(label) for label in data["labels"]]
    definition = " ".join(str(part).strip() for part in data["Definition"])
    task = Task(instructions=definition, labels=labels, input=["text"])
    raws = [
        RawRecord(position=k, line=k + 1, data={"text": text, "gold": str(label)})
        for k, (text, label) in enumerate(texts.items())
        if str(label) in labels
    ]
    return task, raws


def _from_files(options: argparse.Namespace) -> tuple[Task, Iterator[RawRecord]]:
    task = load_task(options.task)
    key = task.id or "id"
    gold = {raw.data[key]: _gold_of(raw.data) for raw in FileSource(options.gold) if raw.data}
    raws = (
        msgspec.structs.replace(raw, data={**raw.data, "gold": gold[raw.data[key]]})
        for raw in FileSource(options.input)
        if raw.data and raw.data[key] in gold
    )
    return task, raws


def _gold_of(data: Mapping[str, Any]) -> Any:
    return next(data[name] for name in ("output", "label", "gold") if name in data)


# -- what came of it -------------------------------------------------------------------------------------------------


def _document(
    options: argparse.Namespace, task: Task, model: str, measured: Sequence[Measured], gold: Sequence[Any]
) -> dict[str, Any]:
    judged = [list(zip(gold, one.answers, strict=True)) for one in measured]
    scores = [metric_of("accuracy", task)(each) for each in judged]
    f1 = [metric_of("macro-f1", task)(each) for each in judged]
    pairs = Pairs(len(measured))
    pairs.update(scores)
    ones = [k for k, one in enumerate(measured) if one.setting.batch_size == 1]
    best = max(ones, key=pairs.mean)
    front = pareto_front([(one.weighted, pairs.mean(k)) for k, one in enumerate(measured)])
    rows = []
    for k, one in enumerate(measured):
        difference = pairs.difference(k, best)
        alike = next(j for j in ones if _but_size(measured[j].setting) == _but_size(one.setting))
        interval = mean_within(scores[k], 0.95)
        rows.append(
            {
                "setting": {"batch_size": one.setting.batch_size, "examples": one.setting.examples,
                            "form": one.setting.form},
                "accuracy": pairs.mean(k), "low": interval.low, "high": interval.high,
                "exact": sum(exact(judged[k])) / len(gold), "macro_f1": sum(f1[k]) / len(gold),
                "valid": sum(answer is not None for answer in one.answers) / len(gold),
                "against_best_at_one": {
                    "mean": difference.mean, "low": difference.low(_Z), "high": difference.high(_Z),
                },
                "within_margin": k == best or difference.low(_Z) > -options.margin,
                "input_per_record": one.use.input / len(gold), "cached_per_record": one.use.cached / len(gold),
                "output_per_record": one.use.output / len(gold),
                "input_saved": _saved(one, measured[alike]), "stopped": one.stopped,
                "weighted_tokens_per_record": one.weighted / len(gold),
                "requests": one.use.requests, "malformed": one.use.malformed, "latency_s": one.use.latency_s,
                "records_per_s": len(gold) / one.seconds if one.seconds > 0 else None, "pareto": front[k],
                "best_at_one": k == best,
            }
        )  # fmt: skip
    within = [k for k in range(len(measured)) if rows[k]["within_margin"]]
    chosen = min(within, key=lambda k: measured[k].weighted)
    rows[chosen]["chosen"] = True
    return {
        "name": options.name, "model": model, "records": len(gold), "labels": task.labels or list(task.fields),
        "margin": options.margin, "seed": options.seed, "temperature": 0.0, "lone_attempts": 1, "rows": rows,
        "constant_accuracy": _constant(gold),
        "input_saved_at_choice": 1 - measured[chosen].use.input / measured[best].use.input,
        "measured_at": time.strftime("%Y-%m-%d", time.gmtime()), "versions": versions(),
    }  # fmt: skip


def _saved(one: Measured, other: Measured) -> float | None:
    """Share of the input; none where one of the two was stopped, and asked for a part of the records only."""
    return None if one.stopped or other.stopped else 1 - one.use.input / other.use.input


def _but_size(setting: Setting) -> Setting:
    return msgspec.structs.replace(setting, batch_size=1)


def _constant(gold: Sequence[Any]) -> float:
    """What a model would reach that always says the same: with several variables, the mean over them."""
    columns = [[one[key] for one in gold] for key in gold[0]] if isinstance(gold[0], dict) else [list(gold)]
    return sum(max(column.count(value) for value in column) for column in columns) / len(columns) / len(gold)


def _show(document: Mapping[str, Any]) -> None:
    print(
        f"{document['name']}: {document['model']}, {document['records']} records, seed {document['seed']}, "
        f"temperature 0, margin {document['margin']}; always the same label: {document['constant_accuracy']:.3f}"
    )
    print(f"versions: {document['versions']}")
    print(
        "  B ex form     accuracy [95 %]      F1    valid  against B=1 [90 %]      input cached output saved malf p50_s"
    )
    for row in document["rows"]:
        setting, against = row["setting"], row["against_best_at_one"]
        mark = ("*" if row["pareto"] else " ") + ("<" if row.get("chosen") else " ")
        print(
            f"{setting['batch_size']:>3} {setting['examples']:>3} {setting['form']:<8} "
            f"{row['accuracy']:.3f} [{row['low']:.3f} {row['high']:.3f}] {row['macro_f1']:.3f} {row['valid']:.3f}  "
            f"{against['mean']:+.3f} [{against['low']:+.3f} {against['high']:+.3f}] "
            f"{row['input_per_record']:>7.1f} {row['cached_per_record']:>6.1f} {row['output_per_record']:>6.1f} "
            f"{_share(row['input_saved'])} {row['malformed']:>4}/{row['requests']:<4} {row['latency_s'] or 0:.1f}{mark}"
        )
    print(f"* on the Pareto front; < chosen; input saved against the best B=1: {document['input_saved_at_choice']:.0%}")


def _share(value: float | None) -> str:
    return "    -" if value is None else f"{value:>5.0%}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def numbers(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser.add_argument("--name", required=True)
    parser.add_argument("--data")
    parser.add_argument("--task")
    parser.add_argument("--input")
    parser.add_argument("--gold")
    parser.add_argument("--records", type=int, default=200)
    parser.add_argument("--batch-sizes", type=numbers, default=[1, 2, 5, 10, 20])
    parser.add_argument("--examples", type=numbers, default=[0, 5, 20])
    parser.add_argument("--forms", type=lambda text: text.split(","), default=["compact", "keyed"])
    parser.add_argument("--margin", type=float, default=0.10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base-url")
    parser.add_argument("--model")
    parser.add_argument("--model-path")
    parser.add_argument("--max-concurrency", type=int, default=16)
    parser.add_argument("--work", default="out/real_model")
    parser.add_argument("--results", default="benchmarks/results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
