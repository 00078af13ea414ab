"""The settings that a search looks at: the product of some dimensions, each with the values that it may take."""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from engine.tuning.choosing import Choice, chosen_examples
from engine.tuning.grouping import Together, groups_of
from engine.vocabulary.config import AnswerForm
from engine.vocabulary.errors import ConfigError
from engine.vocabulary.secrets import names_secret, secret_place
from engine.vocabulary.task import PLACEHOLDERS, Task

MOST_SETTINGS = 400
_BODY = "body."
_OWN = "{instructions}"

WORDINGS = {
    "own": _OWN,
    "alone": f"{_OWN}\n\nJudge each input by itself: the right answer to one says nothing about the next.",
    "careful": f"{_OWN}\n\nRead the whole input before you decide, and choose what fits it best.",
}
"""Plain ones that ship, besides the task's own."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One way to do a run.

    :ivar examples: how many of the task's examples are shown. :ivar order: a seed of their order; 0: as they were
        chosen. :ivar schema: whether a JSON schema goes along, where the endpoint takes one.
    :ivar temperature: None: as the command says, as is `model`.
    :ivar body: further keys of the request's body, from the user's own dimensions.
    :ivar choice: which of the examples are shown. :ivar alternate: as `Task` has it, as `reason` and `terse`.
    :ivar variables: how many of several go together: ``together``, ``one-by-one``, or so many at a time.
    :ivar votes: rounds in which a record is asked at the most.
    """

    batch_size: int
    examples: int
    form: AnswerForm
    wording: str = "own"
    order: int = 0
    temperature: float | None = None
    schema: bool = True
    model: str | None = None
    body: dict[str, Any] = {}
    choice: Choice = "balanced"
    alternate: bool = True
    reason: bool = False
    terse: bool = False
    variables: Together = "together"
    votes: int = 1


class Space(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Values of each dimension; see `Setting`. None, or an empty list: the default, which depends on the task.

    :ivar wordings: instructions by name, for `wording`; ``{instructions}`` stands for the task's own.
    :ivar body: dimensions of the user's own: a key of the request's body, and the values that it may take.
    """

    batch_size: tuple[int, ...] = (1, 2, 5, 10, 20)
    examples: tuple[int, ...] | None = None
    form: tuple[AnswerForm, ...] = ("compact", "keyed")
    wording: tuple[str, ...] = ()
    order: tuple[int, ...] = (0,)
    temperature: tuple[float, ...] = ()
    schema: tuple[bool, ...] = (True,)
    model: tuple[str, ...] = ()
    wordings: dict[str, str] = {}
    body: dict[str, list[Any]] = {}
    choice: tuple[Choice, ...] = ("balanced",)
    alternate: tuple[bool, ...] = ()
    reason: tuple[bool, ...] = ()
    terse: tuple[bool, ...] = ()
    variables: tuple[Together, ...] = ("together",)
    votes: tuple[int, ...] = ()

    def instructions(self, task: Task, wording: str) -> str:
        """The instructions in a wording."""
        return {**WORDINGS, **self.wordings}[wording].replace(_OWN, task.instructions.strip())


def load_space(path: str) -> Space:
    """The space in a TOML file.

    :raises ConfigError: naming the file and the key, and what to do.
    """
    try:
        document = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"the space file {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # tomllib's and UTF-8's are ValueErrors
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    unknown = next((key for key in document if key not in Space.__struct_fields__), None)
    if unknown is not None:
        near = get_close_matches(unknown, Space.__struct_fields__, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else f"known keys: {', '.join(Space.__struct_fields__)}"
        raise ConfigError(f"{path}: unknown key '{unknown}'; {hint} A dimension of your own goes under [body]")
    try:
        space = msgspec.convert(document, Space)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}; each dimension is a list of values, such as batch_size = [1, 5]") from None
    problem = next(itertools.chain(_problems(space), _repeated(space)), None)
    if problem:
        raise ConfigError(f"{path}: {problem}")
    return space


def _problems(space: Space) -> Iterator[str]:
    if not space.batch_size or min(space.batch_size) < 1:
        yield "'batch_size' wants numbers from 1 up"
    if space.examples is not None and min(space.examples, default=-1) < 0:
        yield "'examples' wants numbers from 0 up"
    for name in ("form", "order", "schema", "choice", "variables"):
        if not getattr(space, name):
            yield f"'{name}' is an empty list; leave it out, or name a value"
    for name in space.wording:
        if name not in WORDINGS and name not in space.wordings:
            known = ", ".join([*WORDINGS, *space.wordings])
            yield f"there is no wording '{name}'; known: {known}; write your own under [wordings]"
    yield from _wording_problems(space.wordings)
    if any(temperature < 0 for temperature in space.temperature):
        yield "'temperature' wants numbers from 0 up"
    if min(space.votes, default=1) < 1:
        yield "'votes' wants numbers from 1 up; 1 is none"
    if any(isinstance(many, int) and many < 1 for many in space.variables):
        yield '\'variables\' wants "together", "one-by-one", or numbers from 1 up'
    yield from _body_problems(space.body)


def _body_problems(body: Mapping[str, list[Any]]) -> Iterator[str]:
    for name, values in body.items():
        if not values:
            yield f"'body.{name}' is an empty list; leave it out, or name a value"
        if name in ("messages", "model", "stream", "n"):
            yield f"'body.{name}' is not for the user to set" + ("; use model = [...]" if name == "model" else "")
    place = secret_place(body)
    if place is not None:
        yield (
            f"'body' holds what looks like a key ({place}), and what stands in a space is printed and written down; "
            f"the endpoint's key goes into ANNOTATE_API_KEY or --key-file{_elsewhere(place)}"
        )


def _elsewhere(place: str) -> str:
    """Of keys that go with a request and are not the endpoint's; only what is called one is looked up."""
    named = msgspec.json.encode({place: "env:VARIABLE"}).decode()
    return f", another one beside it: --extra-body '{named}'" if names_secret(place) else ""


def _wording_problems(wordings: Mapping[str, str]) -> Iterator[str]:
    for name, text in wordings.items():
        if not text.strip():
            yield f"'wordings.{name}' is empty; {_OWN} stands for the task's own instructions"
        if name == "own":
            yield "'wordings.own' is the task's own; give yours another name"
        for word in re.findall(r"\{\w+\}", text):
            if word in PLACEHOLDERS and word != _OWN:
                yield f"'wordings.{name}': {word} stands for nothing here, only {_OWN} does; the rest follows by itself"
            elif word != _OWN and get_close_matches(word, [_OWN], cutoff=0.7):
                yield f"'wordings.{name}': {word} stands for nothing; did you mean {_OWN}?"


def _given(space: Space) -> Iterator[tuple[str, Sequence[Any]]]:
    """The dimensions and their values."""
    for name in Space.__struct_fields__:
        if name not in ("wordings", "body"):
            yield name, getattr(space, name) or ()
    for name, values in space.body.items():
        yield f"{_BODY}{name}", values


def _repeated(space: Space) -> Iterator[str]:
    for name, values in _given(space):
        for place, value in enumerate(values):
            if _is_in(value, values[:place]):
                yield f"'{name}' has {msgspec.json.encode(value).decode()} twice; take one away"


def _is_in(value: Any, values: Sequence[Any]) -> bool:
    """1 and true are not the same."""
    return msgspec.json.encode(value) in map(msgspec.json.encode, values)


def _check_variables(space: Space, task: Task) -> None:
    """A number that the task does not have, or two values that take the variables apart alike, are a slip."""
    alike: dict[tuple[tuple[str, ...], ...], Together] = {}
    for together in space.variables:
        if isinstance(together, int) and task.is_object and together > len(task.fields):
            raise ConfigError(
                f"the dimension 'variables' asks for {together} together and the task has {len(task.fields)}; write "
                '"together" for all of them'
            )
        groups = tuple(groups_of(task, together))
        if groups in alike:
            raise ConfigError(
                f"the dimension 'variables' has {alike[groups]} and {together}, which are the same for this task; take "
                "one away"
            )
        alike[groups] = together


def settings_of(space: Space, task: Task, *, votes: int = 1) -> list[Setting]:
    """All of them.

    :param votes: where the space does not say.
    :raises ConfigError: the task has fewer examples than are asked for, or there are too many settings.
    """
    _check_variables(space, task)
    have = len(task.examples)
    wanted = space.examples if space.examples is not None else sorted({0, *(k for k in (5, 20) if k < have), have})
    if max(wanted) > have:
        raise ConfigError(
            f"the space asks for {max(wanted)} examples and the task has {have}; add examples to the task, or ask for "
            "fewer"
        )
    dimensions: dict[str, Sequence[Any]] = {
        "batch_size": space.batch_size,
        "examples": wanted,
        "form": space.form,
        "wording": space.wording or ["own", *space.wordings],
        "order": space.order,
        "temperature": space.temperature or [None],
        "schema": space.schema,
        "model": space.model or [None],
        "choice": space.choice,
        **{name: getattr(space, name) or [getattr(task, name)] for name in ("alternate", "reason", "terse")},
        "variables": space.variables,
        "votes": space.votes or [votes],
        **{f"{_BODY}{name}": values for name, values in space.body.items()},
    }
    product = itertools.product(*map(_once, dimensions.values()))
    first = {name: values[0] for name, values in dimensions.items()}
    made = (_setting(dict(zip(dimensions, values, strict=True)), first, have) for values in product)
    settings = _once([setting for setting in made if setting is not None])
    if len(settings) > MOST_SETTINGS:
        raise ConfigError(
            f"the space has {len(settings):,} settings, and {MOST_SETTINGS} are the most: every one is asked about the "
            "first records, which costs more than it can save; take values away"
        )
    return settings


def _setting(values: dict[str, Any], first: Mapping[str, Any], have: int) -> Setting | None:
    """None for one that differs from another in name only: one example has one order, all of them are one choice."""
    plain = {name: value for name, value in values.items() if not name.startswith(_BODY)}
    body = {name.removeprefix(_BODY): value for name, value in values.items() if name.startswith(_BODY)}
    setting = Setting(**plain, body=body)
    if setting.examples <= 1 and (setting.order or setting.alternate != first["alternate"]):
        return None
    return None if setting.examples in (0, have) and setting.choice != first["choice"] else setting


def _once(values: Sequence[Any]) -> list[Any]:
    """Without repetitions. 1 and true are not the same."""
    return list({msgspec.json.encode(value): value for value in values}.values())


def varying(settings: Sequence[Setting]) -> list[str]:
    """The dimensions that take more than one value, in the order of `Setting`."""
    names = [name for name in Setting.__struct_fields__ if name != "body"]
    found = [name for name in names if len({getattr(setting, name) for setting in settings}) > 1]
    keys = settings[0].body if settings else {}
    return found + [f"body.{key}" for key in keys if any(s.body[key] != settings[0].body[key] for s in settings)]


def value_of(setting: Setting, dimension: str) -> Any:
    """The value of one of `varying`."""
    if dimension.startswith("body."):
        return setting.body[dimension.removeprefix("body.")]
    return getattr(setting, dimension)


def task_of(setting: Setting, task: Task, space: Space) -> Task:
    """The task as a setting asks it."""
    examples = chosen_examples(task.examples, setting.examples, setting.choice)
    if setting.order:
        random.Random(setting.order).shuffle(examples)
    return msgspec.structs.replace(
        task,
        instructions=space.instructions(task, setting.wording),
        examples=examples,
        alternate=setting.alternate,
        reason=setting.reason,
        terse=setting.terse,
    )
