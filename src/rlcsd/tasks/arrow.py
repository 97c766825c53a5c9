"""Arrow tables as rows of plain Python values: what a column's type adds to its values is taken away.

0.1 in a column of 32-bit floats is 0.1 and not 0.10000000149011612, and JSON is what it stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any


def arrow_rows(table: Any) -> list[Mapping[str, Any]]:
    """The rows of an Arrow table as plain Python values."""
    columns = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        convert = _converter(column.type)
        values = column.to_pylist()
        columns[name] = values if convert is None else [None if value is None else convert(value) for value in values]
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _converter(kind: Any) -> Callable[[Any], Any] | None:
    """What to make of Arrow's Python value of a type; None where it is right as it is.

    Floats of 16 and 32 bits and decimals become the shortest number of that width, bytes that are UTF-8 a text, a map a
    mapping, and JSON what it stands for; in lists and structs too.
    """
    from pyarrow import types

    if getattr(kind, "extension_name", None) == "arrow.json":
        return _json_value
    if hasattr(kind, "storage_type"):  # another extension type
        return _converter(kind.storage_type)
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _converter(kind.value_type)
    if types.is_float16(kind) or types.is_float32(kind):
        return partial(shortest_float, "float16" if types.is_float16(kind) else "float32")
    if types.is_decimal(kind):
        return _shortest_decimal
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
        return _text
    if types.is_map(kind):
        key, item = _converter(kind.key_type), _converter(kind.item_type)
        return lambda pairs: {_converted(key, k): _converted(item, v) for k, v in pairs}
    if types.is_struct(kind):
        fields = {field.name: _converter(field.type) for field in kind}
        if any(fields.values()):
            return lambda values: {name: _converted(fields[name], value) for name, value in values.items()}
    elif hasattr(kind, "value_type"):  # lists of every sort
        element = _converter(kind.value_type)
        if element is not None:
            return lambda values: [_converted(element, value) for value in values]
    return None


def _converted(convert: Callable[[Any], Any] | None, value: Any) -> Any:
    return value if convert is None or value is None else convert(value)


def shortest_float(kind: Any, value: Any) -> Any:
    """A float that was one of 16 or 32 bits as the shortest number of that width; any other value as it is.

    `kind` is a type's name, or a dtype of numpy, pandas or torch.
    """
    width = str(getattr(kind, "numpy_dtype", kind)).removeprefix("torch.")
    if width not in ("float16", "float32") or not isinstance(value, float):
        return value
    import numpy

    return float(str(getattr(numpy, width)(value)))


def _shortest_decimal(value: Decimal) -> Decimal:
    """0.1 for the 0.1000 of a column of four decimal places."""
    return value.quantize(Decimal(1)) if value == value.to_integral_value() else value.normalize()


def _text(value: Any) -> Any:
    try:
        return value.decode("utf-8")
    except (AttributeError, UnicodeDecodeError):
        return value


def _json_value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
