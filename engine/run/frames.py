"""Data frames as records, by what they can do and not by what they are: neither pandas nor polars is imported."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from engine.vocabulary.errors import ConfigError

_SLICE_ROWS = 1_024
# The words of pandas for a value that is not there; NA cannot even be compared with itself.
_MISSING = ("NAType", "NaTType")


def is_frame(records: Any) -> bool:
    """Whether it is a table with named columns, of pandas or polars: iterating one gives its columns."""
    return _is_lazy(records) or (hasattr(records, "columns") and hasattr(records, "to_dict"))


def _is_lazy(frame: Any) -> bool:
    """A plan of polars, which warns when it is asked for its columns."""
    return hasattr(frame, "collect") and hasattr(frame, "collect_schema")


def frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    """The rows of a data frame, some at a time, with values that JSON can say wherever they have such a form.

    NaN, NaT and NA become None (as in Parquet files), times and durations those of Python, numbers and arrays of numpy
    numbers and lists. Names of columns become text.

    :raises ConfigError: two columns have one name.
    """
    if _is_lazy(frame):
        frame = frame.collect()
    names = Counter(map(str, frame.columns))
    name, count = names.most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ConfigError(f"the data frame has two columns named '{name}'; rename one of them")
    for row in _rows(frame):
        yield {str(column): _value(value) for column, value in row.items()}


def _rows(frame: Any) -> Iterator[dict[Any, Any]]:
    if hasattr(frame, "iter_rows"):
        yield from frame.iter_rows(named=True)
    elif hasattr(frame, "iloc"):
        for first in range(0, len(frame), _SLICE_ROWS):
            yield from frame.iloc[first : first + _SLICE_ROWS].to_dict("records")
    else:
        yield from frame.to_dict("records")


def _value(value: Any) -> Any:
    if value is None or isinstance(value, str | int):
        return value
    if type(value).__name__ in _MISSING or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list):
        return [_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _value(item) for name, item in value.items()}
    for way in ("to_pydatetime", "to_pytimedelta", "tolist"):
        convert = getattr(value, way, None)
        if convert is not None:
            return convert(warn=False) if way == "to_pydatetime" else _value(convert())
    return value
