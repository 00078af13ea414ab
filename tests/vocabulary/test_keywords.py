"""What users construct answers a wrong keyword with the nearest right one; what flows through the pipeline is plain."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import msgspec
import pytest

import engine
from engine import ConfigError, Endpoint, Packing, RunConfig, Task
from engine.vocabulary import values

WHAT_COMES_BACK = {"Result", "RecordError"}
CONSTRUCTED = [
    kind
    for kind in vars(engine).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__name__ not in WHAT_COMES_BACK
]


@pytest.mark.parametrize(
    ("kind", "keywords", "message"),
    [
        (Task, {"instructions": "x", "lables": ["a"]}, "Task has no 'lables'; did you mean 'labels'?"),
        (Task, {"instrutions": "x", "labels": ["a"]}, "Task has no 'instrutions'; did you mean 'instructions'?"),
        (Packing, {"batchsize": 5}, "Packing has no 'batchsize'; did you mean 'batch_size'?"),
        (Endpoint, {"zzz": 1}, "Endpoint has no 'zzz'; it has: base_url, model, "),
    ],
)
def test_a_wrong_keyword_names_the_nearest(kind: Any, keywords: dict[str, Any], message: str) -> None:
    """The class, the keyword and the remedy; a ConfigError like every mistake, a TypeError like Python's own."""
    with pytest.raises(ConfigError) as raised:
        kind(**keywords)
    assert str(raised.value).startswith(message)
    assert isinstance(raised.value, TypeError)


@pytest.mark.parametrize("kind", CONSTRUCTED, ids=lambda kind: kind.__name__)
def test_everything_that_users_construct_does_so(kind: Any) -> None:
    """Every public value, so that a new one is not forgotten; one that flows through the pipeline does not."""
    with pytest.raises(ConfigError, match=f"^{kind.__name__} has no 'qqq'; "):
        kind(qqq=1)


def test_a_missing_keyword_is_not_mistaken_for_a_wrong_one() -> None:
    """Python's own error is kept where the keywords are right."""
    with pytest.raises(TypeError, match="Missing required argument 'model'") as raised:
        Endpoint(base_url="http://x")  # type: ignore[call-arg]
    assert not isinstance(raised.value, ConfigError)


def test_values_of_the_pipeline_are_plain() -> None:
    """They are made for every record, and their constructors stay C."""
    kinds = [kind for kind in vars(values).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    assert {type(kind) for kind in kinds} == {msgspec.StructMeta}


def test_they_are_structs_in_everything_else() -> None:
    """Copies, pickles, comparisons, decoding and the signature that a notebook shows are as they were."""
    config = RunConfig(packing=Packing(batch_size=3))
    thawed = pickle.loads(pickle.dumps(config))  # noqa: S301 - our own bytes
    for twin in (copy.copy(config), thawed, msgspec.structs.replace(config, seed=0)):
        assert (twin, hash(twin)) == (config, hash(config))
    assert msgspec.convert(msgspec.to_builtins(config), RunConfig) == config
    assert list(inspect.signature(Packing).parameters) == list(Packing.__struct_fields__)
