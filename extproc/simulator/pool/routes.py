"""Finds the handler of a request as vLLM's web framework does, and answers what has none.

Paths are matched after their escapes are decoded. vLLM allows no other origin by default, so it
refuses every preflight request of a browser.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ANY: Final = "*"  # the method of a route that takes all of them

_METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY")
_ASKED: Final = ("method", "headers", "private-network")
_MAX_AGE_S: Final = 600


class Routes:
    """Handlers by path and method; `{}` in a path stands for one segment."""

    def __init__(self, handlers: Mapping[str, tuple[str, Handler]]) -> None:
        self._routes = [
            (re.compile(re.escape(path).replace(r"\{\}", "([^/]+)")), method, handler)
            for path, (method, handler) in handlers.items()
        ]

    async def dispatch(self, request: web.Request) -> web.StreamResponse:
        """Answer a request with its handler, or as one that has none."""
        if request.method == "OPTIONS" and _is_preflight(request):
            return _refuse_preflight(request)
        for pattern, method, handler in self._routes:
            if pattern.fullmatch(request.path):
                if method in (ANY, request.method):
                    return await handler(request)
                return _not_allowed(method)
        return self._not_found(request)

    def _not_found(self, request: web.Request) -> web.Response:
        path = request.path.rstrip("/")
        if path != request.path and any(known.fullmatch(path) for known, *_ in self._routes):
            target = request.url.with_path(path).with_query(request.query_string)
            return web.Response(
                status=HTTPStatus.TEMPORARY_REDIRECT, headers={"Location": str(target)}
            )
        return _plain(HTTPStatus.NOT_FOUND)


def segment(request: web.Request, position: int) -> str:
    """Return a segment of the path, decoded; position -1 is the last one."""
    return request.path.split("/")[position]


def _is_preflight(request: web.Request) -> bool:
    return "Origin" in request.headers and "Access-Control-Request-Method" in request.headers


def _refuse_preflight(request: web.Request) -> web.Response:
    asked = {name: request.headers.get(f"Access-Control-Request-{name}") for name in _ASKED}
    faults = ["origin"]
    if asked["method"] not in _METHODS:
        faults.append("method")
    if asked["private-network"] is not None:
        faults.append("private-network")
    response = web.Response(
        text="Disallowed CORS " + ", ".join(faults), status=HTTPStatus.BAD_REQUEST
    )
    response.headers["Vary"] = (
        "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, "
        "Access-Control-Request-Private-Network"
    )
    response.headers["Access-Control-Allow-Methods"] = ", ".join(_METHODS)
    response.headers["Access-Control-Max-Age"] = str(_MAX_AGE_S)
    if asked["headers"] is not None:
        response.headers["Access-Control-Allow-Headers"] = asked["headers"]
    return response


def _not_allowed(allowed: str) -> web.Response:
    response = _plain(HTTPStatus.METHOD_NOT_ALLOWED)
    response.headers["Allow"] = allowed
    return response


def _plain(status: HTTPStatus) -> web.Response:
    body = msgspec.json.encode({"detail": status.phrase})
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json"})
