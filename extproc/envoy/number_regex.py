"""Regular expressions of whole numbers in a range, for matchers that know no numbers.

They match what a client may send as content-length: decimal digits, with leading zeros.
"""

from collections.abc import Iterator


def digits_between(low: int, high: int) -> str:
    """Match the numbers from `low` to `high`, both included; 0 <= low <= high."""
    return f"0*({'|'.join(_between(low, high))})"


def digits_from(low: int) -> str:
    """Match the numbers from `low` on; low >= 0."""
    length = len(str(low))
    same = _between(low, 10**length - 1)
    return f"0*({'|'.join([*same, f'[1-9][0-9]{{{length},}}'])})"


def _between(low: int, high: int) -> Iterator[str]:
    for length in range(len(str(low)), len(str(high)) + 1):
        least = 10 ** (length - 1) if length > 1 else 0
        yield from _same_length(str(max(low, least)), str(min(high, 10**length - 1)))


def _same_length(low: str, high: str) -> Iterator[str]:
    """Match the texts of digits from `low` to `high`, which are equally long."""
    rest = len(low) - 1
    if low[0] == high[0]:
        yield from (low[0] + tail for tail in _same_length(low[1:], high[1:])) if rest else low[0]
        return
    first, last = int(low[0]), int(high[0])
    if low[1:].strip("0"):
        yield from (low[0] + tail for tail in _same_length(low[1:], "9" * rest))
        first += 1
    if high[1:].strip("9"):
        last -= 1
    if first <= last:
        yield _digit(first, last) + (f"[0-9]{{{rest}}}" if rest else "")
    if high[1:].strip("9"):
        yield from (high[0] + tail for tail in _same_length("0" * rest, high[1:]))


def _digit(first: int, last: int) -> str:
    return str(first) if first == last else f"[{first}-{last}]"
