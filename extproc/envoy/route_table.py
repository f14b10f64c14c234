"""The routes of a virtual host, looked up by the path and the headers of a request.

Invariant: finds the routes that are found by asking each in turn, which takes minutes where a
thousand routes are compared with the requests that each of them is for.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from extproc.envoy.document import Part
from extproc.envoy.route_match import PATHS, SampleRequest, matches

_Key = tuple[str, str]

# A regular expression's literal beginning, without a character that it repeats.
_LITERAL: Final = re.compile(r"[^\\.\[({*+?|^$]*(?![*?{])")
_SIGNS: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)


class RouteTable:
    """Routes in order, each under the keys of its path and of one header that it requires.

    Keys may find more routes than match a request, never fewer.
    """

    def __init__(self, routes: Sequence[Part]) -> None:
        self._routes = routes
        self._positions = defaultdict[_Key, defaultdict[_Key | None, list[int]]](
            lambda: defaultdict(list)
        )
        for position, route in enumerate(routes):
            match = route.at("match")
            header = next(filter(None, map(_required, match.at("headers").items())), None)
            for key in _path_keys(match):
                self._positions[key][header].append(position)
        self._sizes = {len(text) for kind, text in self._positions if kind == "starts"}

    def matching(self, request: SampleRequest) -> Iterator[Part]:
        """Yield the routes that match a request, in order."""
        headers = [*map(_required, request.match.at("headers").items()), *request.headers.items()]
        found = set[int]()
        for key in self._keys(request):
            if by_header := self._positions.get(key):
                found.update(*(by_header.get(header, ()) for header in (None, *headers)))
        for position in sorted(found):
            if matches(self._routes[position].at("match"), request):
                yield self._routes[position]

    def _keys(self, request: SampleRequest) -> Iterator[_Key]:
        path = request.path.casefold()
        yield "is", path
        yield from (("starts", path[:size]) for size in self._sizes)
        yield "regex", request.match.at("safe_regex", "regex").text


def _path_keys(match: Part) -> Iterator[_Key]:
    """Yield what a request's path is, or begins with, or the regular expression it is made from."""
    regex = match.at("safe_regex")
    if regex.present:
        text = regex.at("regex").text
        yield "regex", text
        yield "starts", _beginning(text).casefold()
        return
    kind = next((key for key in PATHS if match.at(key).present), None)
    if kind is not None:
        yield "is" if kind == "path" else "starts", match.at(kind).text.casefold()


def _beginning(regex: str) -> str:
    """Return how all texts begin that a regular expression matches; empty if that is not known."""
    depth = 0
    for sign in _SIGNS.findall(regex):
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and not depth:
            return ""
    found = _LITERAL.match(regex)
    return found[0] if found else ""


def _required(header: Part) -> _Key | None:
    """Return the name and value that a condition requires; None if others may meet it."""
    matcher = header.at("string_match")
    others = any(header.at(key).present for key in ("present_match", "invert_match", "range_match"))
    if others or matcher.at("ignore_case").present:
        return None
    exact = matcher.at("exact") if matcher.present else header.at("exact_match")
    return (header.at("name").text.lower(), exact.value) if isinstance(exact.value, str) else None
