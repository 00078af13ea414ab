"""Fuzzing of task files: an error of the user's that names the file, or a task from which all else can be made."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.fuzz_common import edited, packed, unpacked
from engine.adapters.task_file import load_task
from engine.decide.outputs import check_examples, output_check, output_schema
from engine.decide.prompts import make_prompt
from engine.run.compose import task_key
from engine.vocabulary.errors import ConfigError

SEEDS = (
    'instructions = "Say which colour."\nlabels = ["red", "green", "blue"]\nabstain = "unsure"\ninput = ["text"]\n'
    'id = "id"\n[[examples]]\ninput = "roses"\noutput = "red"\n',
    'instructions = """\nJudge it.\n"""\n[fields.mood]\ntype = "label"\nlabels = ["good", "bad"]\ndescription = "d"\n'
    '[fields.count]\ntype = "integer"\n[fields.tags]\ntype = "labels"\nlabels = ["a", "b"]\n[fields.words]\n'
    'type = "strings"\n[[examples]]\ninput = {text = "x"}\noutput = {mood = "good", count = 1, tags = [], '
    'words = ["w"]}\n',
    'instructions = "x"\nmultiple = true\nlabels = ["a", "b"]\nexamples_file = "more.jsonl"\n',
    "template = '{instructions} {labels} {format} {examples}'\ninstructions = 'i'\nlabels = ['a']\n[fields.x]\n"
    "type = 'boolean'\n",
)
EXAMPLES = '{"input": "one", "output": ["a"]}\n{"input": {"text": "two"}, "output": ["b", "a"]}\n'
KEYS = (
    "instructions",
    "labels",
    "fields",
    "multiple",
    "input",
    "id",
    "abstain",
    "examples",
    "examples_file",
    "template",
    "x",
)
VALUES = (
    "1", '"x"', "true", "[]", "{}", '["a", "a"]', '[""]', "nan", "-inf", "1979-05-27T07:32:00Z", "07:32:00", "[[1]]",
    '"{x}"', "{type = 'label'}", "{a = {type = 'number'}}", "[{input = 1, output = 2}]", '"\\u0000"', '"../.."',
    "0x7fffffffffffffffff", "[{input = 'x', output = nan}]", "1e400", '"more.jsonl"', '"."',
)  # fmt: skip


class Tasks:
    """See `benchmarks.fuzz_common.Target`."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.good = 0

    def make(self, rng: Random) -> dict[str, Any]:
        """A task file and its file of examples."""
        text, examples = rng.choice(SEEDS), EXAMPLES
        for _ in range(int(rng.random() * 4)):
            if rng.random() < 0.5:
                line = f"{rng.choice(KEYS)} = {rng.choice(VALUES)}\n"
                lines = text.splitlines(keepends=True)
                at = int(rng.random() * (len(lines) + 1))
                lines[at : at + (rng.random() < 0.5)] = [line]
                text = "".join(lines)
            else:
                text = edited(text, rng.choice(SEEDS), rng, huge=rng.random() < 0.0005)
        if rng.random() < 0.3:
            examples = edited(examples, rng.choice(SEEDS), rng)
        return {"text": packed(text), "examples": packed(examples)}

    def check(self, case: dict[str, Any]) -> str | None:
        """Load it, and make of it what a run makes."""
        path = Path(self._folder.name) / "task.toml"
        path.write_bytes(unpacked(case["text"]).encode("utf-8", "surrogatepass"))
        (path.parent / "more.jsonl").write_bytes(unpacked(case["examples"]).encode("utf-8", "surrogatepass"))
        try:
            task = load_task(str(path), check=check_examples)
        except ConfigError as error:
            named = str(path.parent) in str(error)
            return None if named else f"an error that does not name its file: {error!s:.200}"
        self.good += 1
        check = output_check(task)
        for example in task.examples:
            if check(check(example.output)) != check(example.output):
                return f"the output of an example does not stay what it is: {example.output!r:.100}"
        json.dumps(output_schema(task))
        for form in ("compact", "keyed"):
            make_prompt(task, form).system.encode()
        task_key(task)
        return None

    def figures(self) -> dict[str, Any]:
        """What is worth telling at the end."""
        return {"good tasks": self.good}
