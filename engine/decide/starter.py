"""A first TASK.toml from a sample of the data: guesses, each with a comment that says what to change.

The guesses are about columns, a column being one field over all rows of the sample: which is the id, which holds the
text, and whether one holds labels that somebody gave already, which then serve as label set and examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import msgspec

_ID_NAMES = ("id", "_id", "uuid", "guid", "key", "doc_id", "record_id")
_LABEL_NAMES = (
    *("label", "labels", "class", "category", "sentiment", "topic", "intent", "target", "gold", "stance", "tag"),
    *("emotion", "rating", "annotation", "answer"),
)
# Few, short and repeated, but told by whoever collected the data and not read off the text.
_NOT_LABELS = ("split", "fold", "lang", "language", "locale", "source", "country", "version", "batch", "annotator")

_MAX_LABELS = 20
_MAX_LABEL_LENGTH = 40
_MAX_ID_LENGTH = 80
_MAX_INPUTS = 3
_EXAMPLES = 4
_EXAMPLE_LENGTH = 600
_FREE_TEXT_LENGTH = 25

_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d(?:-\d\d)?(?:[T ]\d\d:\d\d\S*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}(?: \d\d:\d\d\S*)?")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DEFAULT_LABELS = ("first label", "second label")


class _Column(msgspec.Struct, frozen=True, kw_only=True):
    """One field over the sample.

    :ivar values: what is there and not null.
    :ivar is_everywhere: every row has it, not null.
    """

    name: str
    values: list[Any]
    is_everywhere: bool

    @property
    def texts(self) -> list[str]:
        return [value for value in self.values if isinstance(value, str) and value.strip()]

    @property
    def mean_length(self) -> float:
        return sum(map(len, self.texts)) / max(1, len(self.texts))


class _Guess(msgspec.Struct, frozen=True, kw_only=True):
    """What the sample suggests.

    :ivar labels: label by label, the rows that have it; empty if no column looks like labels.
    """

    id: str | None
    inputs: list[str]
    label_column: str | None
    labels: dict[str, list[Mapping[str, Any]]]


def starter_task(rows: Sequence[dict[str, Any]], *, source_name: str, id_field: str | None = None) -> str:
    """The text of a commented TASK.toml for records like `rows`. It parses, and `make_task` takes it as it is.

    :param rows: a sample, some 100 rows; none gives the bare form.
    :param source_name: where they are from, for the first comment.
    :param id_field: the field of the id when it is known; else it is guessed.
    """
    guess = _guess(rows, id_field)
    parts = (
        _head(rows, source_name),
        _instructions(guess),
        _labels(guess),
        _fields_read(guess),
        _examples(rows, guess),
    )
    return "\n".join([line for part in parts for line in (*part, "")] + [_REST])


# --- guesses


def _guess(rows: Sequence[Mapping[str, Any]], id_field: str | None) -> _Guess:
    columns = _columns(rows)
    id_name = id_field or _id_name(columns, len(rows))
    others = [column for column in columns if column.name != id_name]
    labels = _label_column(others, len(rows))
    inputs = _inputs([column for column in others if column is not labels])
    if labels is None or not inputs:
        return _Guess(id=id_name, inputs=inputs, label_column=None, labels={})
    by_label: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row.get(labels.name) is not None:
            by_label.setdefault(_label(row[labels.name]), []).append(row)
    return _Guess(id=id_name, inputs=inputs, label_column=labels.name, labels=by_label)


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[_Column]:
    names = dict.fromkeys(chain.from_iterable(rows))
    found = []
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        found.append(_Column(name=name, values=values, is_everywhere=len(values) == len(rows)))
    return found


def _id_name(columns: Sequence[_Column], count: int) -> str | None:
    usable = [column for column in columns if _is_unique(column)]
    by_name = {column.name.lower(): column.name for column in reversed(usable)}
    for name in _ID_NAMES:
        if name in by_name:
            return by_name[name]
    for name, original in by_name.items():
        if name.endswith("id"):
            return original
    # Unlike a name, being unique says nothing in a few rows, and texts are unique too.
    unique = (column.name for column in usable if count >= 5 and all(_is_id_like(value) for value in column.values))
    return next(unique, None)


def _is_unique(column: _Column) -> bool:
    plain = all(isinstance(value, str | int) and not isinstance(value, bool) for value in column.values)
    if not (plain and column.is_everywhere) or "" in column.values:
        return False
    return len(set(column.values)) == len(column.values)


def _is_id_like(value: Any) -> bool:
    if isinstance(value, int):
        return True
    return len(value) <= _MAX_ID_LENGTH and not re.search(r"\s", value) and not _is_mark(value)


def _is_mark(text: str) -> bool:
    """Whether a text is an address or a date."""
    return bool(_URL.fullmatch(text.strip()) or _DATE.fullmatch(text.strip()))


def _label_column(columns: Sequence[_Column], count: int) -> _Column | None:
    """The column that looks like labels: by name, else the one of words with the fewest of them."""
    usable = [column for column in columns if _is_label_like(column, count)]
    for name in _LABEL_NAMES:
        for column in usable:
            if column.name.lower() == name or column.name.lower().endswith("_" + name):
                return column
    words = [
        column
        for column in usable
        if column.name.lower() not in _NOT_LABELS and all(isinstance(value, str) for value in column.values)
    ]
    return min(words, key=lambda column: len(set(column.values)), default=None)


def _is_label_like(column: _Column, count: int) -> bool:
    if not column.values or not all(isinstance(value, str | int | bool) for value in column.values):
        return False
    labels = {_label(value) for value in column.values}
    short = all(label.strip() and len(label) <= _MAX_LABEL_LENGTH and "\n" not in label for label in labels)
    few = 2 <= len(labels) <= _MAX_LABELS and 2 * len(labels) <= len(column.values) and 2 * len(column.values) >= count
    return short and few and not all(map(_is_mark, labels))


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _clean(str(value))


def _inputs(columns: Sequence[_Column]) -> list[str]:
    """The fields that hold text: free text if there is some, else the longest strings; in the order of the data."""
    texts = [column for column in columns if _is_text(column)]
    complete = [column for column in texts if column.is_everywhere] or texts
    longest = sorted(complete, key=lambda column: column.mean_length, reverse=True)
    chosen = [column for column in longest if _is_free(column)][:_MAX_INPUTS] or longest[:1]
    return [column.name for column in columns if column in chosen]


def _is_text(column: _Column) -> bool:
    texts = column.texts
    if not texts or 2 * len(texts) < len(column.values) or all(map(_is_mark, texts)):
        return False
    return len(texts) == 1 or len(set(texts)) > 1


def _is_free(column: _Column) -> bool:
    spaced = sum(" " in text.strip() for text in column.texts)
    return 2 * spaced >= len(column.texts) and column.mean_length >= _FREE_TEXT_LENGTH


# --- the parts of the file


def _head(rows: Sequence[Mapping[str, Any]], source_name: str) -> Iterator[str]:
    sample = f", from its first {len(rows)} records" if rows else ""
    yield f"# A task for {_comment(source_name)}{sample}. Lines after # are not in force."
    yield "# Look at what would be sent with: annotate run TASK.toml INPUT --output OUT.jsonl --show-prompt"


def _instructions(guess: _Guess) -> Iterator[str]:
    question = f"decide the {guess.label_column} of it" if guess.label_column else "decide which label fits it best"
    yield "# What is to be decided about each input, in your own words. Say what to do in cases of doubt."
    yield f"instructions = {_string(f'Read each input and {question}.')}"


def _labels(guess: _Guess) -> Iterator[str]:
    labels = list(guess.labels or _DEFAULT_LABELS)
    if guess.labels:
        yield f"# The label set: the values of {_comment(guess.label_column or '')} in the sample. Add what is missing."
    else:
        yield "# The label set: change these to yours."
    yield f"labels = {_array(labels)}"
    yield "# A definition for each label helps the model more than anything else; in place of the list above:"
    yield "# labels = {" + ", ".join(f'{_string(label)} = "what it means"' for label in labels) + "}"
    yield "# Several labels may hold for one record; the output is then a list."
    yield "# multiple = true"
    yield "# A way out for records that fit no label, so that the model need not guess."
    yield f"# abstain = {_string(_unused('cannot be told', guess.labels))}"


def _fields_read(guess: _Guess) -> Iterator[str]:
    yield "# The fields of a record that are sent to the model; without this key, all but the id. Fewer are cheaper."
    yield f"input = {_array(guess.inputs)}" if guess.inputs else '# input = ["text"]'
    yield "# The field that holds the id, different in every record; without one, the line number serves."
    yield f"id = {_string(guess.id)}" if guess.id is not None else '# id = "id"'


def _examples(rows: Sequence[Mapping[str, Any]], guess: _Guess) -> Iterator[str]:
    solved = list(_solved(guess))
    yield "# Solved examples, for the model to imitate: three to ten good ones, of every label. Sent every time."
    if solved:
        yield "# These are records of the sample, with the labels that they have there; check that they are right."
        yield "examples = ["
        yield from (f"  {{input = {value}, output = {_string(label)}}}," for value, label in solved)
        yield "]"
        return
    first = next(filter(None, (_example_input(row, guess.inputs) for row in rows)), _string("an input"))
    yield "# examples = ["
    yield f"#   {{input = {first}, output = {_string(_DEFAULT_LABELS[0])}}},"
    yield "# ]"


_REST = """\
# More examples, from a JSONL file with {"input": ..., "output": ...} a line.
# examples_file = "examples.jsonl"

# Your own wording of the whole prompt; {format} must stay in it.
# template = "{instructions}\\n\\n{labels}\\n\\n{format}\\n\\n{examples}"

# Other forms of asking; `annotate tune` tells what each is worth. A reason of a few words before each answer, dropped
# and paid for; examples in the order above, even where equal labels touch; shorter rules of the format.
# reason = true
# alternate = false
# terse = true

# Several variables at once: take out `labels`, `multiple` and the examples above, and describe each variable here.
# type is one of label, labels, string, strings, boolean, integer, number; the first two need `labels`.
# [fields.topic]
# type = "label"
# labels = ["first label", "second label"]
# description = "What the input is mainly about."
# [fields.is_urgent]
# type = "boolean"
# description = "Whether somebody has to act today."
"""


def _solved(guess: _Guess) -> Iterator[tuple[str, str]]:
    """Input (as TOML) and label of up to four rows, taken from the labels in turn, so that no label stands in runs."""
    by_label = [
        [(text, label) for row in rows if (text := _example_input(row, guess.inputs)) is not None]
        for label, rows in guess.labels.items()
    ]
    # Short inputs make cheap examples; the sort is stable, so equal ones stay in their order.
    turns = zip_longest(*(sorted(pairs, key=lambda pair: len(pair[0])) for pairs in by_label))
    chosen: list[tuple[str, str]] = []
    for pair in chain.from_iterable(turns):
        if pair is not None and not (chosen and chosen[-1][1] == pair[1]):
            chosen.append(pair)
    return iter(chosen[:_EXAMPLES])


def _example_input(row: Mapping[str, Any], inputs: Sequence[str]) -> str | None:
    """The input of `row` as TOML: a string for one field, else a table; None if a field is not text there."""
    values = [row.get(name) for name in inputs]
    texts = [_string(_cut(value)) for value in values if isinstance(value, str) and value.strip()]
    if not texts or len(texts) != len(values):
        return None
    if len(texts) == 1:
        return texts[0]
    pairs = (f"{_key(name)} = {text}" for name, text in zip(inputs, texts, strict=True))
    return "{" + ", ".join(pairs) + "}"


def _cut(text: str) -> str:
    return text if len(text) <= _EXAMPLE_LENGTH else text[:_EXAMPLE_LENGTH].rstrip() + " …"


def _unused(word: str, labels: Mapping[str, Any]) -> str:
    return word if word not in labels else f"{word} (none of these)"


# --- TOML


def _array(texts: Sequence[str]) -> str:
    return "[" + ", ".join(map(_string, texts)) + "]"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    """A basic string on one line, whatever is in `text`."""
    return '"' + "".join(map(_escape, text)) + '"'


def _comment(text: str) -> str:
    """`text` in a form that cannot end a comment."""
    return "".join(map(_escape, text[:200])).replace('\\"', '"')


_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escape(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if code < 0x20 or 0x7F <= code <= 0x9F or code in (0x2028, 0x2029, 0x85):
        return f"\\u{code:04X}"
    return _clean(character)


def _clean(text: str) -> str:
    """Lone surrogates have no place in TOML, nor in UTF-8."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
