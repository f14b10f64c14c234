"""Envoy's choice of a route, for sample requests that are made from the routes themselves.

Conditions that cannot be evaluated without a real request (metadata, query parameters, runtime)
hold for the route that the sample was made from, and for routes with the same condition.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from extproc.envoy.document import Part
from extproc.names import POOL_HEADER
from extproc.request.apis import generating_paths

OUR_PREFIX = "x-llm-"
"""How the names of headers begin that only the service sets."""
INFERENCE_PATHS = generating_paths()
PATHS = ("prefix", "path", "path_separated_prefix")
"""The conditions on a path, but for regular expressions; the first that is there counts."""
_OPAQUE = (
    "query_parameters", "dynamic_metadata", "runtime_fraction", "grpc", "tls_context", "cookies",
    "filter_state", "connect_matcher", "path_match_policy",
)  # fmt: skip
_REGEX_START = re.compile(r"[^\\.\[({*+?|^$]*")


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A request that meets the conditions of `match`, the `match` of a route."""

    path: str
    headers: Mapping[str, str]
    match: Part

    def with_pool(self, name: str) -> "SampleRequest":
        """Return the request after the service has chosen a pool."""
        return replace(self, headers={**self.undecided().headers, POOL_HEADER: name})

    def undecided(self) -> "SampleRequest":
        """Return the request as it arrives: without headers that only the service sets."""
        kept = {k: v for k, v in self.headers.items() if not k.startswith(OUR_PREFIX)}
        return replace(self, headers=kept)

    @property
    def is_exact(self) -> bool:
        """Whether the path meets the `match`; a sample of a regular expression may not."""
        regex = self.match.at("safe_regex")
        return not regex.present or _regex_matches(regex, self.path)


def samples(match: Part) -> Iterator[SampleRequest]:
    """Yield requests that meet the conditions of a route's `match`."""
    wanted = (_satisfy(header) for header in match.at("headers").items())
    headers = {":method": "POST", **{name: value for name, value in wanted if name}}
    for path in _sample_paths(match):
        yield SampleRequest(path, headers, match)


def is_certain(match: Part, request: SampleRequest) -> bool:
    """Whether the conditions of a `match` on headers hold, or not, for all requests like this one.

    They are on the method, on a header that only the service sets, or the sample's own.
    """
    own = [str(each.value) for each in request.match.at("headers").items()]
    return all(
        str(header.value) in own
        or header.at("name").text.lower().startswith((":method", OUR_PREFIX))
        for header in match.at("headers").items()
    )


def covers(match: Part, other: Part) -> bool:
    """Whether a `match` has the paths of another, whatever the headers."""
    return all(has_path(match, request) for request in samples(other))


def matches(match: Part, request: SampleRequest) -> bool:
    """Whether the request meets the conditions of a `match`."""
    return (
        has_path(match, request)
        and all(_header_holds(header, request) for header in match.at("headers").items())
        and all(_is_same(match.at(key), request.match.at(key)) for key in _OPAQUE)
    )


def text_matches(matcher: Part, text: str) -> bool:
    """Whether a StringMatcher matches the text."""
    fold = matcher.at("ignore_case").value is True
    given = text.lower() if fold else text
    for key, holds in (
        ("exact", str.__eq__),
        ("prefix", str.startswith),
        ("suffix", str.endswith),
        ("contains", str.__contains__),
    ):
        if matcher.at(key).present:
            wanted = matcher.at(key).text
            return holds(given, wanted.lower() if fold else wanted)
    return _regex_matches(matcher.at("safe_regex"), text)


def accepts_header(match: Part, name: str, value: str) -> bool:
    """Whether the conditions of a `match` on this header hold for a value."""
    asked = SampleRequest("", {name: value}, Part("", None))
    named = (h for h in match.at("headers").items() if h.at("name").text.lower() == name)
    return all(_header_holds(header, asked) for header in named)


def has_header(match: Part, name: str) -> bool:
    """Whether a `match` has a condition on this header."""
    return any(each.at("name").text.lower() == name for each in match.at("headers").items())


def _sample_paths(match: Part) -> Iterator[str]:
    if match.at("path").present:
        yield match.at("path").text
        return
    regex = match.at("safe_regex")
    start = match.at("prefix").text or match.at("path_separated_prefix").text
    found = _REGEX_START.match(regex.at("regex").text)
    start = start or (found[0] if found else "")
    # A regular expression may begin with any character: then the path is an API's own.
    paths = [start, *(_joined(start, path) for path in INFERENCE_PATHS)]
    if start.endswith("/"):
        paths.append(f"{start}chat/completions")  # /v1 may be added on the way to the pool
    # Of a regular expression those that it surely has, if there are any.
    paths = [path for path in paths if _regex_matches(regex, path)] or paths
    yield from dict.fromkeys(path for path in paths if path.startswith("/"))


def _joined(start: str, path: str) -> str:
    """Return a path below `start`, of which `start` may hold a part: /llm/v1 and /v1/messages."""
    held = next(size for size in range(len(path), -1, -1) if start.endswith(path[:size]))
    return start + path[held:]


def has_path(match: Part, request: SampleRequest) -> bool:
    """Whether a `match` has the path of a request."""
    regex = match.at("safe_regex")
    if regex.present:
        same = _is_same(regex, request.match.at("safe_regex"))
        return same or _regex_matches(regex, request.path)
    key = next((key for key in PATHS if match.at(key).present), None)
    if key is None:
        return False
    path, wanted = request.path, match.at(key).text
    if match.at("case_sensitive").value is False:
        path, wanted = path.lower(), wanted.lower()
    if key == "prefix":
        return path.startswith(wanted)
    return path == wanted or (key == "path_separated_prefix" and path.startswith(f"{wanted}/"))


def _regex_matches(regex: Part, text: str) -> bool:
    try:
        return re.fullmatch(regex.at("regex").text, text) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _satisfy(header: Part) -> tuple[str, str]:
    """Return a name and value that meet a header's condition; no name if none is needed."""
    if header.at("invert_match").value is True or header.at("present_match").value is False:
        return "", ""
    matcher = header.at("string_match")
    given = [matcher.at(key) for key in ("exact", "prefix", "suffix", "contains")]
    given += [header.at(f"{key}_match") for key in ("exact", "prefix", "suffix", "contains")]
    text = next((each.text for each in given if each.present), "x")
    start = header.at("range_match", "start").number
    return header.at("name").text.lower(), text if start is None else str(start)


def _header_holds(header: Part, request: SampleRequest) -> bool:
    name = header.at("name").text.lower()
    value = request.headers.get(name)
    is_ours = name.startswith(OUR_PREFIX)
    if not is_ours and any(_is_same(header, h) for h in request.match.at("headers").items()):
        return True
    if header.at("present_match").present:
        holds = (value is not None) is header.at("present_match").value
    else:
        holds = value is not None and _value_holds(header, value)
    return holds is not (header.at("invert_match").value is True)


def _value_holds(header: Part, value: str) -> bool:
    span = header.at("range_match")
    if span.present:
        low, high = span.at("start").number or 0, span.at("end").number or 0
        return value.isdecimal() and len(value) < 20 and low <= int(value) < high
    if header.at("string_match").present:
        return text_matches(header.at("string_match"), value)
    older = {key: header.at(f"{key}_match").value for key in ("exact", "prefix", "suffix",
             "contains", "safe_regex")}  # fmt: skip
    given = {key: each for key, each in older.items() if each is not None}
    return text_matches(Part(header.path, given), value) if given else True


def _is_same(part: Part, other: Part) -> bool:
    return str(part.value) == str(other.value)
