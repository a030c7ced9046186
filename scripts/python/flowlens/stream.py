"""Record streams (man 5 records): rows as dicts, as a DataFrame, and their numbers by name."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional, TextIO, Union

from .header import Refused, distinct, need, no_number

if TYPE_CHECKING:
    import pandas

__all__ = ["encode", "frame", "parse", "records", "scalars"]

Source = Union[str, "os.PathLike[str]", TextIO]
Row = dict[str, Any]

LINE_BYTES_MAX = 16 << 20


def records(source: Source, kind: Optional[str] = None) -> list[Row]:
    """Rows of a record stream (a path or an open text file) or of plain JSON lines, of one type or of all. A stream that began and did
    not end, or that ended partial, is refused."""
    if not isinstance(source, (str, os.PathLike)):
        return parse(source, "records", kind)
    with open(source, encoding="utf-8-sig") as text:
        return parse(text, os.fspath(source), kind)


def parse(lines: Iterable[str], where: str, kind: Optional[str] = None) -> list[Row]:
    """As `records`, of lines that are already here."""
    rows, is_stream, open_, count, line_count = [], False, False, 0, 0
    for number, line in enumerate(lines, 1):
        line_count = number
        if not line.strip():
            continue
        at = f"{where}: line {number}"
        row = _row(line, at)
        if row.get("type") == "begin" and (is_stream or not count):
            need(not open_, f"{at}: a stream begins inside another")
            schema = str(row.get("schema", ""))
            need(schema == "flowlens/1" or schema.startswith("flowlens/1."), f"{at}: schema {schema!r} is not known")
            is_stream, open_, count = True, True, 0
        elif row.get("type") == "end" and is_stream:
            need(open_, f"{at}: an end without a begin")
            need(row.get("row_count") == count, f"{at}: {count} rows where the end record says {row.get('row_count')}")
            need(row.get("status") == "complete", f"{at}: the stream is {row.get('status')}")
            open_ = False
        else:
            need(open_ or not is_stream, f"{at}: a row behind the end")
            count += 1
            if kind is None or row.get("type") == kind:
                rows.append(row)
    need(line_count, f"{where}: empty: its producer failed before it began")
    need(not open_, f"{where}: the stream ends without its end record: its producer failed")
    return rows


def _row(line: str, at: str) -> Row:
    need(len(line) <= LINE_BYTES_MAX, f"{at}: longer than {LINE_BYTES_MAX} bytes")
    try:
        row = json.loads(line, object_pairs_hook=distinct, parse_constant=no_number)
    except (json.JSONDecodeError, RecursionError, Refused) as cause:
        raise Refused(f"{at}: {cause}") from None
    need(isinstance(row, dict), f"{at}: not an object")
    return dict(row)


def frame(source: Source, kind: Optional[str] = None) -> "pandas.DataFrame":
    """Like `records`, as a pandas DataFrame: a column for each key."""
    import pandas

    return pandas.DataFrame(records(source, kind))


def scalars(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a record by name, nested ones by their path: `aux/vcl/c_k`."""
    for key, value in row.items():
        if isinstance(value, dict):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield prefix + key, value


def encode(row: Row) -> str:
    """A record as a line."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n"
