"""Turn the raw columns of one part into ids and timestamps, or say which row cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from hfrec.data.columns import LogColumns
from hfrec.data.readers import Part, read_table
from hfrec.tokenization import SPECIAL_TOKENS

_Parse = Callable[[Any], Any]
# Smallest number that is a date in each unit, and how many of it are a second. From 1973 on the units do not overlap:
# up to 2286 in seconds.
UNITS = {
    "seconds": (10**8, 1),
    "milliseconds": (10**11, 10**3),
    "microseconds": (10**14, 10**6),
    "nanoseconds": (10**17, 10**9),
}
_ZONED = pa.timestamp("us", tz="UTC")
YEARS = (-62_135_596_800_000_000, 253_402_300_799_999_999)  # 1 to 9999, in microseconds since 1970


def normalise_part(part: Part, source: LogColumns) -> pa.Table:
    """Check one part and give its columns their canonical names and types.

    Args:
        part ([`Part`]): What was read.
        source ([`LogColumns`]): What it calls its columns.

    Returns:
        `pa.Table`: `user_id: string, item_id: string, timestamp: int64 | float64 | timestamp[us]`, then the others.

    Raises:
        ValueError: With part, row, column and value of what is wrong.
    """
    names = source.names
    check_columns(part, names)
    if part.table.num_rows == 0:
        raise ValueError(f"{part.name}: no rows. Expected a log with at least one interaction.")
    columns = {
        "user_id": ids_to_strings(part, source.user_column),
        "item_id": _no_special_tokens(part, source.item_column, ids_to_strings(part, source.item_column)),
        "timestamp": _timestamps(part, source.timestamp_column),
    }
    further = [name for name in part.table.column_names if name not in names.values()]
    clash = [name for name in further if name in names]
    if clash:
        raise ValueError(f"{part.name}: column {clash[0]!r} would be hidden by {names[clash[0]]!r}: rename or drop it.")
    return pa.table({**columns, **{name: part.table[name] for name in further}})


def read_ids(
    source: Any, *columns: str, name: str, string_columns: tuple[str, ...] = ()
) -> tuple[pa.ChunkedArray, Part]:
    """The ids of a single table as strings, from the first of `columns` that it has, and what stands beside them.

    Args:
        source: What `read_source` takes.
        columns: Names of the column of ids; the first is the one that a setting names.
        name: What an error calls the source, such as "items_file".
        string_columns: Others that are never to be guessed.

    Raises:
        ValueError: Several files, none of the columns, or what is no id.
    """
    part = read_table(source, name=name, string_columns=(*columns, *string_columns))
    found = part.table.column_names
    column = next((column for column in columns if column in found), None)
    if column is None:
        wanted = " or ".join(map(repr, dict.fromkeys(columns)))
        raise ValueError(
            f"{part.name}: `{name}` has no column {wanted}, found {', '.join(found)}. Name its column of ids."
        )
    return ids_to_strings(part, column), Part(part.name, part.table.drop_columns(column))


def ids_to_strings(part: Part, column: str) -> pa.ChunkedArray:
    """Ids of any flat type as strings; whole floats (pandas' integers with gaps) lose their ".0"."""
    values = _flat(part.table[column])
    if pa.types.is_floating(values.type):
        _exact(part, column, values)
    values = _nan_as_null(values)
    _check_nulls(part, column, values)
    try:
        strings = _strings(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"{part.name}, column {column!r}: ids of type {values.type} cannot be read as strings ({error}). "
            "Expected strings, numbers or booleans."
        ) from error
    empty = pc.index(pc.equal(pc.utf8_trim_whitespace(strings), ""), True).as_py()
    if empty >= 0:
        raise _bad_value(part, column, empty, strings[empty].as_py(), "a non-empty id")
    return strings


def as_texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values of any flat type as strings, NaN as null; whole floats (pandas' integers with gaps) lose their ".0"."""
    return _strings(_nan_as_null(_flat(values)))


def _nan_as_null(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Floats as float64 with nulls for NaN; other values as they are."""
    if not pa.types.is_floating(values.type):
        return values
    wide = values.cast(pa.float64())
    return pc.if_else(pc.is_nan(wide), None, wide)


def _strings(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """What `as_texts` makes of values without NaN."""
    if pa.types.is_floating(values.type):
        whole = pc.equal(pc.floor(values), values)
        digits = pc.if_else(whole, values, 0.0).cast(pa.int64()).cast(pa.string())  # as text, 1e12 is "1e+12"
        values = pc.if_else(whole, digits, values.cast(pa.string()))
    return values.cast(pa.string())


def _exact(part: Part, column: str, values: pa.ChunkedArray) -> None:
    """Refuse floats so large that different numbers are equal."""
    digits = {"halffloat": 11, "float": 24}.get(str(values.type), 53)
    row = pc.index(pc.greater_equal(pc.abs(values.cast(pa.float64())), float(2**digits)), True).as_py()
    if row >= 0:
        expected = (
            f"below 2**{digits}, above which different numbers are equal as {values.type}: store integers or text"
        )
        raise _bad_value(part, column, row, values[row].as_py(), expected)


def _no_special_tokens(part: Part, column: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Refuse items of the names that a vocabulary has for its special tokens."""
    row = pc.index(pc.is_in(ids, pa.array(SPECIAL_TOKENS)), True).as_py()
    if row >= 0:
        raise _bad_value(part, column, row, ids[row].as_py(), "an id that is no special token")
    return ids


def check_columns(part: Part, names: dict[str, str]) -> None:
    """Refuse a part that lacks one of the columns `names.values()`, or has it twice."""
    found = part.table.column_names
    for canonical, name in names.items():
        argument = canonical.removesuffix("_id") + "_column"
        if found.count(name) != 1:
            problem = "missing" if name not in found else "there more than once"
            raise ValueError(
                f"{part.name}: column {name!r} (`{argument}`) is {problem}. Found: {', '.join(found)}. "
                f"Name the right one with `{argument}`{_separated(found)}."
            )
    if len(set(names.values())) < len(names):
        raise ValueError(f"`user_column`, `item_column` and `timestamp_column` must differ, found {names}.")


def _separated(found: list[str]) -> str:
    """A hint where a text file was read as one column."""
    return "" if len(found) > 1 else ", or what separates the columns with `delimiter`"


def _check_nulls(part: Part, column: str, values: pa.ChunkedArray) -> None:
    if values.null_count:
        row = pc.index(pc.is_null(values), True).as_py()
        raise _bad_value(part, column, row, None, f"a value in every row ({values.null_count} null)")


def _bad_value(part: Part, column: str, row: int, value: Any, expected: str) -> ValueError:
    return ValueError(
        f"{part.name}, row {part.first_row + row + 1} (counted from 1, header not counted), column {column!r}: "
        f"found {value!r}, expected {expected}. Repair or remove that row."
    )


def _flat(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values


def _timestamps(part: Part, column: str) -> pa.ChunkedArray:
    values = _flat(part.table[column])
    _check_nulls(part, column, values)
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return _timestamps_from_strings(part, column, values.cast(pa.string()))
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _microseconds(part, column, values)
    if pa.types.is_integer(kind):
        return _one_unit(part, column, _int64(part, column, values))
    if pa.types.is_floating(kind):
        _exact(part, column, _finite(part, column, values))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _one_unit(part, column, _finite(part, column, values.cast(pa.float64())))
    raise ValueError(f"{part.name}, column {column!r}: found type {kind}, expected numbers, ISO strings or datetimes.")


def _microseconds(part: Part, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    wide = pa.timestamp("us", tz=getattr(values.type, "tz", None))
    finer = pa.types.is_timestamp(values.type) and values.type.unit == "ns"  # loses digits, and cannot leave the range

    def parse(some: pa.ChunkedArray) -> pa.ChunkedArray:
        return some.cast(wide, safe=not finer).cast(pa.timestamp("us"))

    if not _parses(values, parse):
        row = _first_unparsable(values, parse)
        number = values.slice(row, 1).cast(pa.int64() if pa.types.is_timestamp(values.type) else pa.int32())
        found = f"{number[0].as_py()} ({values.type})"
        raise _bad_value(part, column, row, found, "a time in the years 1 to 9999")
    parsed = parse(values)
    numbers = parsed.cast(pa.int64())
    outside = pc.or_(pc.less(numbers, YEARS[0]), pc.greater(numbers, YEARS[1]))
    if (row := pc.index(outside, True).as_py()) >= 0:  # dates that neither Python nor a card can name
        raise _bad_value(part, column, row, f"{numbers[row].as_py()} microseconds", "a time in the years 1 to 9999")
    if finer and pc.count_distinct(parsed).as_py() != pc.count_distinct(values).as_py():
        raise ValueError(
            f"{part.name}, column {column!r}: some times differ by nanoseconds alone and would be tied: expected "
            "microseconds. Round them, or store nanoseconds as integers."
        )
    return parsed


def check_zone(part: Part, first: Part, column: str) -> None:
    """Refuse times with a zone beside times without: nobody knows of which zone those are.

    Args:
        part: Rows, the first of which stands for all.
        first: Rows that were read before.
        column: What both call their times.

    Raises:
        ValueError: With both names.
    """
    zones = [_has_zone(one.table[column]) for one in (first, part)]
    if sorted(map(str, zones)) == ["False", "True"]:
        with_zone, without = (first, part) if zones[0] else (part, first)
        raise ValueError(
            f"Column {column!r} has times with a zone in {with_zone.name} and without one in {without.name}: expected "
            "one kind in all files. Write the zone, such as Z, behind all times."
        )


def _has_zone(values: pa.ChunkedArray) -> bool | None:
    """Whether times name their zone, by the first of them; None of what is no date."""
    values = _flat(values.slice(0, 1))
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        return getattr(values.type, "tz", None) is not None
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return None
    parsed = next((parse(values) for parse in _parsers()[:3] if _parses(values, parse)), None)
    if parsed is None:
        return True if _parses(values, _parsers()[3]) else None
    return False if pa.types.is_timestamp(parsed.type) else None


def check_order(part: Part, column: str) -> None:
    """Refuse numbers that do not tell the order of a history, in one part or in several joined.

    Raises:
        ValueError: Seconds and milliseconds in one column, or integers that are equal as floats.
    """
    if not pa.types.is_timestamp(part.table[column].type):
        _one_unit(part, column, part.table[column])


def _one_unit(part: Part, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_floating(values.type):
        row = pc.index(pc.greater_equal(pc.abs(values), float(2**53)), True).as_py()
        if row >= 0:
            expected = "below 2**53, above which different times are equal as floats: store integers in every file"
            raise _bad_value(part, column, row, values[row].as_py(), expected)
    firsts = {}
    for unit, (first, _) in UNITS.items():
        bounds = (first, min(100 * first, 2**63 - 1))
        low, high = (pa.scalar(float(x) if pa.types.is_floating(values.type) else x) for x in bounds)
        within = pc.and_(pc.greater_equal(values, low), pc.less(values, high))
        if (row := pc.index(within, True).as_py()) >= 0:
            firsts[unit] = row
    if len(firsts) > 1:
        row = max(firsts.values())
        expected = f"one unit in the whole column, not {' beside '.join(firsts)}"
        raise _bad_value(part, column, row, values[row].as_py(), expected)
    return values


def _int64(part: Part, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    def parse(some: pa.ChunkedArray) -> pa.ChunkedArray:
        return some.cast(pa.int64())

    if not _parses(values, parse):  # only uint64 can hold more
        row = _first_unparsable(values, parse)
        raise _bad_value(part, column, row, values[row].as_py(), "a time below 2**63")
    return parse(values)


def _finite(part: Part, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    row = pc.index(pc.is_finite(values), False).as_py()
    if row >= 0:
        raise _bad_value(part, column, row, values[row].as_py(), "a finite number")
    return values


def _parsers() -> list[_Parse]:
    return [
        lambda values: values.cast(pa.int64()),
        lambda values: values.cast(pa.float64()),
        lambda values: values.cast(pa.timestamp("us")),
        lambda values: values.cast(_ZONED).cast(pa.timestamp("us")),
    ]


def _timestamps_from_strings(part: Part, column: str, values: pa.ChunkedArray) -> pa.ChunkedArray:
    for parse in _parsers():
        if _parses(values, parse):
            parsed = parse(values)
            if pa.types.is_timestamp(parsed.type):
                return parsed
            parsed = _finite(part, column, parsed) if pa.types.is_floating(parsed.type) else parsed
            return _one_unit(part, column, parsed)
    # The kind of the first value is what the column is taken to be; the first row that is not of it gets the blame.
    kind = next((parse for parse in _parsers()[1:] if _parses(values.slice(0, 1), parse)), None)
    row = 0 if kind is None else _first_unparsable(values, kind)
    expected = "a number or an ISO time such as 2024-05-31T12:00:00, and one kind in the whole column"
    raise _bad_value(part, column, row, values[row].as_py(), expected)


def _parses(values: pa.ChunkedArray, parse: _Parse) -> bool:
    try:
        parse(values)
    except pa.ArrowInvalid:
        return False
    return True


def _first_unparsable(values: pa.ChunkedArray, parse: _Parse) -> int:
    low, high = 0, len(values)  # rows before `low` parse; the first bad row lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if _parses(values.slice(low, middle - low), parse):
            low = middle
        else:
            high = middle
    return low
