"""Requests in rows: the columns of every known format, and rows to a trace or a workload.

The rule kept here: a row is taken, or counted as left out, or refused with its place.
"""

import math
from array import array
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import numpy as np

from extproc.planner.traffic.lengths import InputError, Trace, Workload, equally_weighted

MOST_TOKENS: Final = 1 << 24
"""The longest length that is believed, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """The names of a format's columns; capital letters do not matter.

    per_s: units of the time column in a second; dates are dates in every format. ordered: whether
    rows come in the order of time, so that one that goes back is a fault. prefix: the column of the
    ids of blocks of 512 tokens, "" where there is none. sign: a column that tells the format from
    another one that has the rest, too.
    """

    title: str
    prompt: str
    output: str
    time: str
    per_s: float = 1.0
    ordered: bool = True
    prefix: str = ""
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
    # Mooncake's columns, but seconds, and blocks of 16 tokens.
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
    Format(title="lengths", prompt="prompt_tokens", output="completion_tokens", time="at_s"),
)
"""What is known by its columns; Azure of 2023 and 2024, BurstGPT 1 to 3, and what follows them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What an input holds.

    count: the requests that it counts, 0 where it is a distribution that counts none. notes: what
    was left out or assumed, each one sentence without its full stop.
    """

    requests: Trace | Workload
    count: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """A format, and how a file writes the names of its columns; `time` is "" where it has none."""

    form: Format
    prompt: str
    output: str
    time: str


def recognise(columns: Collection[str]) -> Columns:
    """Return the format that has its prompt and output among the columns.

    Raises ValueError with what is missing, where there is none, or more than one.
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
    time = names.get(_plain(form.time), "")
    return Columns(form, names[_plain(form.prompt)], names[_plain(form.output)], time)


def _lack(names: Collection[str]) -> str:
    for form in FORMATS:
        for have, lack in ((form.prompt, form.output), (form.output, form.prompt)):
            if _plain(have) in names:
                return f"{lack} is missing; {form.title}: {form.prompt}, {form.output}"
    allowed = "; ".join(f"{f.prompt}, {f.output} ({f.title})" for f in FORMATS if not f.sign)
    return f"no known columns in {', '.join(names)[:200]}; allowed: {allowed}; tokens, cdf"


def _plain(column: str) -> str:
    return column.strip().casefold()


class Rows:
    """Collects the rows of one file, 24 bytes each; `done` says what they are together."""

    def __init__(self, name: str, form: Format, *, timed: bool) -> None:
        """`timed`: whether the rows have times."""
        self._name, self._form, self._timed = name, form, timed
        self._prompt, self._output, self._at = array("q"), array("q"), array("d")
        self._prefixes: list[tuple[int, ...]] = []
        self._latest = -math.inf
        self._left_out = 0

    def add(
        self, row: int, prompt: object, output: object, at: object, prefix: tuple[int, ...] = ()
    ) -> None:
        """Take a request. Raises InputError where its values cannot be."""
        try:
            tokens = read_tokens(output, self._form.output, least=0)
            if not tokens:
                self._left_out += 1
                return
            self._prompt.append(read_tokens(prompt, self._form.prompt))
            self._output.append(tokens)
            if self._timed:
                self._at.append(self._time(at))
            if prefix:
                self._prefixes.append(prefix)
        except ValueError as error:
            raise InputError(self._name, row, str(error)) from None

    def leave_out(self) -> None:
        """Count a request of unknown length."""
        self._left_out += 1

    def done(self) -> Reading:
        """Return all that was taken: a trace where there are times. Raises InputError if none."""
        if not self._prompt:
            raise InputError(self._name, 0, "no request with output; at least one is needed")
        left_out = f"{self._left_out} requests of no output or of unknown length are left out"
        return Reading(
            requests=self._trace() if self._timed else self._workload(),
            count=len(self._prompt),
            notes=(f"{self._name}: {left_out}",) if self._left_out else (),
        )

    def _time(self, at: object) -> float:
        seconds = read_seconds(at, self._form.time, self._form.per_s)
        if self._form.ordered and seconds < self._latest:
            back = self._latest - seconds
            raise ValueError(f"{self._form.time} goes back by {back:g} s; rows are sorted by time")
        self._latest = seconds
        return seconds

    def _workload(self) -> Workload:
        prompt, output = np.array(self._prompt), np.array(self._output)
        return equally_weighted(self._name, prompt, output)

    def _trace(self) -> Trace:
        at_s = np.array(self._at)
        order = np.argsort(at_s, kind="stable")
        complete = len(self._prefixes) == len(order)
        return Trace(
            name=self._name,
            at_s=at_s[order] - at_s[order[0]],
            prompt=np.array(self._prompt)[order],
            output=np.array(self._output)[order],
            prefixes=tuple(self._prefixes[row] for row in order) if complete else (),
        )


def read_tokens(value: object, column: str, least: int = 1) -> int:
    """Return a cell's number of tokens. Raises ValueError where it is none, or absurd."""
    number = read_number(value)
    if not (number.is_integer() and least <= number <= MOST_TOKENS):
        allowed = f"a whole number of tokens from {least} to {MOST_TOKENS}"
        raise ValueError(f"{column} is {_shown(value)}; allowed: {allowed}")
    return int(number)


def read_seconds(value: object, column: str, per_s: float) -> float:
    """Return a cell's time in seconds. Raises ValueError where it is neither date nor number."""
    text = value.strip() if isinstance(value, str) else ""
    seconds = _date(text) if text[4:5] == "-" else read_number(value) / per_s
    if not math.isfinite(seconds):
        allowed = "a number, or a date in UTC as in 2023-11-16 18:15:46.68"
        raise ValueError(f"{column} is {_shown(value)}; allowed: {allowed}")
    return seconds


def _date(text: str) -> float:
    """Return the seconds of a date since 1970 in UTC, NaN where it is none."""
    plain = text.removesuffix("+00:00").removesuffix("Z")
    zoned = "+" in plain or "-" in plain[10:]
    try:
        # datetime would lose the 100 ns of Azure's traces.
        return math.nan if zoned else int(np.datetime64(plain, "ns").item()) / 1e9
    except ValueError:
        return math.nan


def read_number(value: object) -> float:
    """Return the number that a cell of CSV or JSON holds, NaN where it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _shown(value: object) -> str:
    return "missing" if value is None else repr(value)[:60]
