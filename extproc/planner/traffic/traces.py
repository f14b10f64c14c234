"""Read lengths from text in any format of the planner, recognised by its columns.

CSV: a CDF of totals, the Azure LLM traces, BurstGPT, lengths. JSON lines: Mooncake's trace, vLLM's
requests, our access log, lengths. JSON: see documents.py.

Invariant: only the numbers of a row are kept in memory, and anything that cannot be read raises
one InputError with file and row.
"""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import msgspec

from extproc.planner.traffic.cdf import read_cdf, share_column
from extproc.planner.traffic.documents import (
    DOCUMENT_KEYS,
    TEXTS,
    Object,
    read_document,
    read_objects,
)
from extproc.planner.traffic.lengths import OUTPUT_SHARE, InputError
from extproc.planner.traffic.rows import Batch, Columns, Reading, Rows, read_number, recognise

MOST_DOCUMENT_CHARS: Final = 1 << 28
"""The longest JSON document; JSON lines and CSV may be of any length."""

_Cells = tuple[int, Sequence[str]]
"""Row of the file and its cells."""


def read(lines: Iterable[str], name: str, output_share: float = OUTPUT_SHARE) -> Reading:
    """Read the lines of a file; `name` stands for the file in messages.

    output_share: share of a total that is output, for formats that only have totals.
    Raises InputError.
    """
    rest = iter(lines)
    head: list[str] = []
    while not (head and head[-1].strip()):
        # Skip blank lines; NUL stands for the end, since no line of text is a NUL.
        head.append(next(rest, "\0"))
    first, everything = head[-1], chain(head, rest)
    if first == "\0":
        raise InputError(name, 0, "empty; allowed: CSV, JSON or JSON lines")
    if first.lstrip()[0] not in "[{":
        return _csv(first, everything, name, output_share)
    if _is_row(first):
        return read_objects(_json_lines(everything, name), name, output_share)
    return read_document(_joined(everything, name), name, output_share)


def _csv(first: str, lines: Iterable[str], name: str, output_share: float) -> Reading:
    cells = _cells(lines, max(",;\t", key=first.count), name)
    row, header = next(cells)
    share = share_column(header)
    if share is None and len(header) == 2 and read_number(header[0]) >= 0:
        share, cells = 1, chain([(row, header)], cells)  # a CDF without a header
    if share is not None:
        points = ((row, pair[1 - share], pair[share]) for row, pair in cells)
        return read_cdf(points, name, output_share)
    try:
        columns = recognise(header)
    except ValueError as error:
        raise InputError(name, row, str(error)) from None
    return _csv_rows(columns, header, cells, name)


def _cells(lines: Iterable[str], delimiter: str, name: str) -> Iterator[_Cells]:
    """Yield the rows. Raises InputError if one has more or fewer cells than the first."""
    table, width = csv.reader(lines, delimiter=delimiter, strict=True), 0
    try:
        for cells in table:
            width = width or len(cells)
            if len(cells) != width and cells:
                text = f"{len(cells)} columns; allowed: {width}, as in the first row"
                raise InputError(name, table.line_num, text)
            if cells:
                yield table.line_num, cells
    except csv.Error as error:
        raise InputError(name, table.line_num, f"{error}; allowed: CSV") from None


def _csv_rows(
    columns: Columns, header: Sequence[str], cells: Iterable[_Cells], name: str
) -> Reading:
    prompt, output = header.index(columns.prompt), header.index(columns.output)
    time = header.index(columns.time) if columns.time else prompt
    batch = [header.index(c) if c else None for c in (columns.prompts, columns.n)]
    read_columns = {columns.prompt, columns.output, columns.time, columns.prompts, columns.n}
    unread = [column for column in header if column not in read_columns]
    rows = Rows(name, columns.form, timed=bool(columns.time), unread=unread)
    for row, values in cells:
        counts = Batch(*(None if place is None else values[place] for place in batch))
        rows.add(row, values[prompt], values[output], values[time], batch=counts)
    return rows.done()


def _is_row(line: str) -> bool:
    """Return whether a line is a JSON object that describes one request."""
    try:
        # A pretty-printed document has only a part of itself in its first line.
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return False
    if not isinstance(fields, dict) or DOCUMENT_KEYS & fields.keys():
        return False
    return not all(read_number(key) >= 0 for key in fields)  # a CDF by its tokens


def _json_lines(lines: Iterable[str], name: str) -> Iterator[Object]:
    for row, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield row, msgspec.json.decode(line)
            except msgspec.DecodeError as error:
                raise InputError(name, row, f"{error}; allowed: JSON lines") from None


def _joined(lines: Iterable[str], name: str) -> str:
    pieces, chars = list[str](), 0
    for line in lines:
        chars += len(line)
        pieces.append(line)
        # ShareGPT's files may exceed the limit: report what they lack, not their size.
        if '"conversations"' in line:
            raise InputError(name, 0, TEXTS)
        if chars > MOST_DOCUMENT_CHARS:
            raise InputError(
                name, 0, f"too long; allowed: JSON of {MOST_DOCUMENT_CHARS} characters"
            )
    return "".join(pieces)
