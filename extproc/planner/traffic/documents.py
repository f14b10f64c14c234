"""Read lengths from JSON: objects of one request each, and documents of many requests.

Documents are a CDF of totals, a result of `vllm bench serve --save-detailed`, and the answer of a
live service to GET /lengths.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, Final

import msgspec
import numpy as np

from extproc.budget.lengths import LengthHistogram
from extproc.planner.traffic.cdf import read_cdf, share_column
from extproc.planner.traffic.lengths import InputError, weighted
from extproc.planner.traffic.live import Category
from extproc.planner.traffic.rows import Batch, Format, Reading, Rows, read_tokens, recognise

DOCUMENT_KEYS: Final = frozenset({"cdf", "input_lens", "total_input_tokens", "lengths"})
"""A document that is an object has one of these keys."""

TEXTS: Final = (
    "texts without token counts; count them with your model's tokenizer, as `vllm bench serve"
    " --save-result --save-detailed` does: its result can be read"
)
_RESULT: Final = Format(
    title="vLLM benchmark result",
    prompt="input_lens",
    output="output_lens",
    time="start_times",
    ordered=False,
)
# Envoy writes a line when a request ends, so start times are not sorted.
_LOG: Final = Format(
    title="access log", prompt="budget", output="budget", time="start", ordered=False
)

Object = tuple[int, Any]
"""Row, or number of the entry from 1, and the decoded value."""


def read_objects(objects: Iterator[Object], name: str, output_share: float) -> Reading:
    """Read objects of one request each. Raises InputError."""
    row, first = next(objects)
    everything = _fields(chain([(row, first)], objects), name)
    if {"budget", "pool"} <= first.keys():
        return _read_log(everything, name, output_share, timed=_LOG.time in first)
    try:
        columns = recognise(first)
    except ValueError as error:
        texts = {"conversations", "messages", "prompt", "text"} & first.keys()
        raise InputError(name, row, TEXTS if texts else str(error)) from None
    rows = Rows(name, columns.form, timed=bool(columns.time))
    for row, fields in everything:
        lengths = fields.get(columns.prompt), fields.get(columns.output)
        prefix = _prefix(fields, columns.form, name, row)
        batch = Batch(fields.get(columns.prompts), fields.get(columns.n))
        rows.add(row, *lengths, fields.get(columns.time), prefix=prefix, batch=batch)
    return rows.done()


def read_document(text: str, name: str, output_share: float) -> Reading:
    """Read a whole JSON document. Raises InputError."""
    try:
        # Raw: a detailed benchmark result also holds every text and every inter-token latency,
        # which stay undecoded.
        document = msgspec.json.decode(text, type=list[Any] | dict[str, msgspec.Raw])
        if isinstance(document, list):
            return _read_list(document, name, output_share)
        return _read_fields(document, text, name, output_share)
    except msgspec.MsgspecError as error:
        raise InputError(name, 0, f"{error}; allowed: JSON of a known form") from None


def _read_list(entries: list[Any], name: str, output_share: float) -> Reading:
    if entries and isinstance(entries[0], dict) and share_column(list(entries[0])) is None:
        return read_objects(iter(enumerate(entries, 1)), name, output_share)
    return read_cdf(_points(entries, name), name, output_share)


def _read_fields(
    fields: dict[str, msgspec.Raw], text: str, name: str, output_share: float
) -> Reading:
    if "input_lens" in fields:
        return _read_result(fields, name)
    if "total_input_tokens" in fields:
        raise InputError(name, 0, "input_lens is missing; run vllm bench serve --save-detailed")
    if "lengths" in fields:
        return read_lengths(LengthHistogram.from_json(text), name)
    points: Any = msgspec.json.decode(fields.get("cdf", text))
    return read_cdf(_points(points, name), name, output_share)


def _points(points: Any, name: str) -> Iterator[tuple[int, object, object]]:
    """Yield number, tokens and share of each entry: pairs, objects with both, or one object."""
    pairs = list(points.items()) if isinstance(points, dict) else points
    if not isinstance(pairs, list):
        raise InputError(name, 0, "not a table; allowed: pairs of tokens and the share within them")
    for row, entry in enumerate(pairs, 1):
        share = share_column(list(entry)) if isinstance(entry, dict) else 1
        pair = list(entry.values()) if isinstance(entry, dict) else entry
        if share is None or not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InputError(name, row, "not a pair; allowed: tokens and the share within them")
        yield row, pair[1 - share], pair[share]


def _fields(objects: Iterable[Object], name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for row, fields in objects:
        if not isinstance(fields, dict):
            raise InputError(name, row, "not an object; allowed: the same columns in every row")
        yield row, fields


def _prefix(fields: dict[str, Any], form: Format, name: str, row: int) -> tuple[int, ...]:
    ids = fields.get(form.prefix, [])
    # Not isinstance, which takes true and false for integers.
    if not isinstance(ids, list) or not all(type(block) is int for block in ids):
        raise InputError(name, row, f"{form.prefix} is not a list of whole numbers")
    return tuple(ids)


def _read_log(
    objects: Iterable[tuple[int, dict[str, Any]]], name: str, output_share: float, *, timed: bool
) -> Reading:
    rows = Rows(name, _LOG, timed=timed)
    for row, fields in objects:
        if fields.get("budget") in (None, "", "-"):  # the request was not read
            rows.leave_out()
            continue
        try:
            total = read_tokens(fields["budget"], "budget", least=2)
        except ValueError as error:
            raise InputError(name, row, str(error)) from None
        # At least one token of prompt and one of output.
        output = min(max(1, round(total * output_share)), total - 1)
        rows.add(row, total - output, output, fields.get(_LOG.time))
    reading = rows.done()
    note = f"{name}: lengths are budgets, an upper bound with margin and reserved output"
    share = f"{name}: {output_share:.0%} of each is taken for output"
    return replace(reading, notes=(*reading.notes, note, share))


def _read_result(fields: dict[str, msgspec.Raw], name: str) -> Reading:
    names = (_RESULT.prompt, _RESULT.output, _RESULT.time)
    columns = [msgspec.json.decode(fields.get(key, b"[]"), type=list[Any]) for key in names]
    prompts, outputs, starts = columns
    if len(prompts) != len(outputs) or len(starts) not in {0, len(prompts)}:
        sizes = ", ".join(f"{key} {len(c)}" for key, c in zip(names, columns, strict=True))
        raise InputError(
            name, 0, f"{sizes}; allowed: the same number of each (start_times may be missing)"
        )
    rows = Rows(name, _RESULT, timed=bool(starts))
    for row, prompt in enumerate(prompts):
        rows.add(row + 1, prompt, outputs[row], starts[row] if starts else None)
    return rows.done()


def read_lengths(histogram: LengthHistogram, name: str) -> Reading:
    """Return the lengths that a live service has seen. Raises InputError if there are none."""
    rows = list(histogram.rows())
    if not rows:
        raise InputError(name, 0, "no request seen yet; at least one is needed")
    by_category = groupby(rows, key=lambda row: row[0])  # rows come by category
    categories = [_category(label, found) for label, found in by_category]
    everything = _category(name, rows)
    return Reading(
        requests=everything.lengths,
        count=everything.count,
        categories=tuple(sorted(categories, key=lambda each: -each.count)),
    )


def _category(name: str, rows: Iterable[tuple[str, int, int, int]]) -> Category:
    counts = [counts for _, *counts in rows]
    prompt, output, requests = np.array(counts, dtype=np.int64).T
    lengths = weighted(name, prompt, output, requests.astype(np.float64))
    return Category(lengths, int(requests.sum()))
