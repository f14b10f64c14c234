"""Requests in rows: the columns of every known format, and rows to a trace or a workload.

A window holds one sequence, so a row of several sequences (several prompts, or `n`) becomes as many
requests of one sequence each. Usage counts all of them together: every prompt once, every output.

Invariant: a row is read, counted as left out, or rejected with its place.
"""

import math
from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from extproc.planner.traffic.lengths import InputError, Trace, Workload, equally_weighted
from extproc.planner.traffic.live import Category

MOST_TOKENS: Final = 1 << 24
"""The longest length that is believed, in tokens."""

MOST_SEQUENCES: Final = 1 << 16
"""The most sequences of one request that are believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The names of a format's columns, case-insensitive; "" for a column that it does not have.

    per_s: units of the time column per second; dates are read in every format. ordered: rows are
    sorted by time, so a time that goes back is an error. prefix: ids of the prompt's blocks of 512
    tokens. prompts, n: how many prompts a row holds, and sequences per prompt. sign: a column that
    tells the format from another one with the same columns.
    """

    title: str
    prompt: str
    output: str
    time: str
    per_s: float = 1.0
    ordered: bool = True
    prefix: str = ""
    prompts: str = ""
    n: str = ""
    sign: str = ""


FORMATS: Final = (
    Format(
        title="Azure LLM trace", prompt="ContextTokens", output="GeneratedTokens", time="TIMESTAMP"
    ),
    Format(title="BurstGPT", prompt="Request tokens", output="Response tokens", time="Timestamp"),
    Format(
        title="Mooncake trace",
        prompt="input_length",
        output="output_length",
        time="timestamp",
        per_s=1000.0,
        prefix="hash_ids",
    ),
    # Mooncake's columns, but seconds, and blocks of 16 tokens: its hash_ids are not read, since
    # prefixes here are in parts of 512.
    Format(
        title="Qwen-Bailian trace",
        prompt="input_length",
        output="output_length",
        time="timestamp",
        sign="chat_id",
    ),
    Format(
        title="vLLM benchmark requests",
        prompt="prompt_len",
        output="output_len",
        time="start_time",
        ordered=False,
    ),
    Format(
        title="lengths",
        prompt="prompt_tokens",
        output="completion_tokens",
        time="at_s",
        prompts="prompts",
        n="n",
    ),
)
"""The formats that are recognised by their columns: Azure 2023 and 2024, BurstGPT 1 to 3, ..."""

NO_TIMES: Final = "the input has no arrival times; allowed: a column " + ", ".join(
    f"{form.time} beside {form.prompt} ({form.title})" for form in FORMATS if not form.sign
)
"""Says what an input lacks, and what the columns of times are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an input holds.

    count: its number of requests, 0 for a distribution. notes: what was left out or assumed, one
    sentence each, without the full stop. categories: of a live service, the most frequent first.
    """

    requests: Trace | Workload
    count: int
    notes: tuple[str, ...] = ()
    categories: tuple[Category, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """A format and how a file spells its columns; "" for a column that the file does not have."""

    form: Format
    prompt: str
    output: str
    time: str
    prompts: str
    n: str


def recognise(columns: Collection[str]) -> Columns:
    """Return the format whose prompt and output columns are among these.

    Raises ValueError, with what is missing, if no format or more than one matches.
    """
    names = {_plain(column): column for column in columns}
    known = [f for f in FORMATS if {_plain(f.prompt), _plain(f.output)} <= names.keys()]
    signed = [f for f in known if f.sign and f.sign in names]
    known = signed or [f for f in known if not f.sign]
    if len(known) > 1:
        raise ValueError(f"columns of {' and of '.join(f.title for f in known)}; allowed: of one")
    if not known:
        raise ValueError(_lack(names))
    form = known[0]
    required = (names[_plain(form.prompt)], names[_plain(form.output)])
    optional = (form.time, form.prompts, form.n)
    return Columns(form, *required, *(names.get(_plain(c), "") if c else "" for c in optional))


def _lack(names: Collection[str]) -> str:
    for form in FORMATS:
        for have, lack in ((form.prompt, form.output), (form.output, form.prompt)):
            if _plain(have) in names:
                return f"{lack} is missing; {form.title}: {form.prompt}, {form.output}"
    allowed = "; ".join(f"{f.prompt}, {f.output} ({f.title})" for f in FORMATS if not f.sign)
    return f"no known columns in {', '.join(names)[:200]}; allowed: {allowed}; tokens, cdf"


def _plain(column: str) -> str:
    return column.strip().casefold()


class Batch(NamedTuple):
    """Cells with the sequences that a row counts together; None: one."""

    prompts: object = None
    n: object = None


_ONE: Final = Batch()


class Rows:
    """Collects the rows of one file, 24 bytes per sequence."""

    def __init__(
        self, name: str, form: Format, *, timed: bool, unread: Collection[str] = ()
    ) -> None:
        """`timed`: whether the rows have times. unread: columns, of which one may hold times."""
        self._name, self._form, self._timed = name, form, timed
        self._prompt, self._output, self._at = array("q"), array("q"), array("d")
        self._prefixes: list[tuple[int, ...]] = []
        self._latest = -math.inf
        self._unread = unread
        self._left_out = 0
        self._requests = 0

    def add(
        self,
        row: int,
        prompt: object,
        output: object,
        at: object,
        *,
        prefix: tuple[int, ...] = (),
        batch: Batch = _ONE,
    ) -> None:
        """Add a request. Raises InputError if its values are impossible."""
        try:
            tokens = read_tokens(output, self._form.output, least=0)
            # An embedding or a failed request has no answer to plan for.
            if not tokens:
                self._left_out += 1
                return
            prompts, sequences = _sequences(batch)
            # Usage has sums alone: the prompts, and the outputs, are taken to be equally long.
            each = math.ceil(read_tokens(prompt, self._form.prompt) / prompts)
            self._prompt.extend([each] * sequences)
            self._output.extend([math.ceil(tokens / sequences)] * sequences)
            if self._timed:
                self._at.extend([self._time(at)] * sequences)
            if prefix:
                self._prefixes.extend([prefix] * sequences)
            self._requests += 1
        except ValueError as error:
            raise InputError(self._name, row, str(error)) from None

    def leave_out(self) -> None:
        """Count a request of unknown length."""
        self._left_out += 1

    def done(self) -> Reading:
        """Return the rows: a trace if they have times. Raises InputError if there are none."""
        if not self._prompt:
            lacking = "no request with output" if self._left_out else "no rows"
            raise InputError(self._name, 0, f"{lacking}; at least one is needed")
        return Reading(
            requests=self._trace() if self._timed else self._workload(),
            count=len(self._prompt),
            notes=tuple(f"{self._name}: {note}" for note in self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if self._left_out:
            yield f"{self._left_out} requests of no output or of unknown length are left out"
        if self._requests < len(self._prompt):
            yield f"{self._requests} requests count as {len(self._prompt)}, one per sequence"
        if self._unread and not self._timed:
            columns = ", ".join(self._unread)[:200]
            yield f"no arrival times, which are in a column {self._form.time}; not read: {columns}"

    def _time(self, at: object) -> float:
        seconds = read_seconds(at, self._form.time, self._form.per_s)
        if self._form.ordered and seconds < self._latest:
            back = self._latest - seconds
            raise ValueError(
                f"{self._form.time} goes back by {back:g} s; allowed: rows sorted by time"
            )
        self._latest = seconds
        return seconds

    def _workload(self) -> Workload:
        prompt, output = np.array(self._prompt), np.array(self._output)
        return equally_weighted(self._name, prompt, output)

    def _trace(self) -> Trace:
        at_s = np.array(self._at)
        order = np.argsort(at_s, kind="stable")
        # A prefix for some rows only would be assigned to the wrong ones.
        complete = len(self._prefixes) == len(order)
        return Trace(
            name=self._name,
            at_s=at_s[order] - at_s[order[0]],
            prompt=np.array(self._prompt)[order],
            output=np.array(self._output)[order],
            prefixes=tuple(self._prefixes[row] for row in order) if complete else (),
        )


def _sequences(batch: Batch) -> tuple[int, int]:
    """Return the prompts of a row and its sequences. Raises ValueError."""
    cells = zip(batch, ("prompts", "n"), strict=True)
    prompts, n = (1 if cell is None else read_tokens(cell, name) for cell, name in cells)
    if prompts * n > MOST_SEQUENCES:
        raise ValueError(f"{prompts * n} sequences; allowed: up to {MOST_SEQUENCES}")
    return prompts, prompts * n


def read_tokens(value: object, column: str, least: int = 1) -> int:
    """Return the whole number in a cell. Raises ValueError if it is not one, or out of range."""
    number = read_number(value)
    if not (number.is_integer() and least <= number <= MOST_TOKENS):
        allowed = f"a whole number from {least} to {MOST_TOKENS}"
        raise ValueError(f"{column} is {_shown(value)}; allowed: {allowed}")
    return int(number)


def read_seconds(value: object, column: str, per_s: float) -> float:
    """Return the time in a cell, in seconds. Raises ValueError if it is no date and no number."""
    text = value.strip() if isinstance(value, str) else ""
    # A date begins with a year of four digits; 1.5e-3 has its hyphen there too.
    dated = text[:4].isdigit() and text[4:5] == "-"
    seconds = _date(text) if dated else read_number(value) / per_s
    if not math.isfinite(seconds):
        allowed = "a number, or a date in UTC as in 2023-11-16 18:15:46.68"
        raise ValueError(f"{column} is {_shown(value)}; allowed: {allowed}")
    return seconds


def _date(text: str) -> float:
    """Return a date as seconds since 1970, UTC; NaN if it is not a date."""
    plain = text.removesuffix("+00:00").removesuffix("Z")
    zoned = "+" in plain or "-" in plain[10:]
    try:
        # datetime would lose the 100 ns of Azure's traces.
        return math.nan if zoned else int(np.datetime64(plain, "ns").item()) / 1e9
    except ValueError:
        return math.nan


def read_number(value: object) -> float:
    """Return the number in a cell of CSV or JSON; NaN if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
