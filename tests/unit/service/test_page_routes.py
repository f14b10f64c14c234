"""The page's part of the HTTP side, asked over its port."""

import asyncio
import io
import json
import time
from dataclasses import replace

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from extproc.build import build_learner
from extproc.config.settings import Settings
from extproc.page.digest import Digest
from extproc.page.files import SECURITY_HEADERS
from extproc.service import page_routes
from extproc.service.bearer import BearerToken
from extproc.service.build_page import build_page
from extproc.service.http import HttpServer
from extproc.stream.metrics import WorkerMetrics

BODY = b'{"model": "m", "max_tokens": 9, "prompt": "Where do owls sleep?"}'
EXPLAIN = "/page/explain?path=/v1/completions"
JSON = {"content-type": "application/json"}


def build(token=None):
    settings = Settings()
    learner = build_learner(settings)
    page = build_page(settings, learner, WorkerMetrics(CollectorRegistry()))
    server = HttpServer(CollectorRegistry(), learner, dict, lambda: True, token, page)
    return server, page.overview


def serving(scenario, token=None):
    """Run a coroutine function of a session, the base URL and the page's overview."""

    async def main():
        server, overview = build(token)
        port = await server.start("127.0.0.1", 0)
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
                return await asyncio.wait_for(scenario(session, overview), 60)
        finally:
            await asyncio.wait_for(server.stop(), 60)

    return asyncio.run(main())


@pytest.fixture
def token(tmp_path):
    (tmp_path / "token").write_text("sesame")
    return BearerToken(tmp_path / "token")


async def events(answer, names):
    """Return the first events with these names."""
    found = {}
    while not found.keys() >= names:
        name = (await answer.content.readline()).decode().removeprefix("event: ").strip()
        found[name] = json.loads((await answer.content.readline()).removeprefix(b"data: "))
        await answer.content.readline()
    return found


async def post(session, url=EXPLAIN, body=BODY, **headers):
    async with session.post(url, data=body, headers=JSON | headers) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/page/page.css", "text/css"),
        ("/page/page.js", "text/javascript"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/uplot.js", "text/javascript"),
    ],
)
def test_a_file_needs_no_token_and_has_all_headers(path, kind, token):
    async def scenario(session, _):
        async with session.get(path) as answer:
            return answer.status, answer.content_type, dict(answer.headers)

    status, found, headers = serving(scenario, token)
    assert (status, found) == (200, kind)
    lower = {name.lower(): value for name, value in headers.items()}
    assert {name: lower.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_the_stream_has_the_figures_the_hour_and_what_was_learnt():
    async def scenario(session, overview):
        overview.tell(0, Digest({"dualpool_decisions_total short fits": 3.0}))
        async with session.get("/page/events") as answer:
            assert answer.content_type == "text/event-stream"
            return await events(answer, {"now", "hour", "learnt"})

    found = serving(scenario)
    assert found["now"]["pools"][0]["reasons"] == {"fits": 3}
    assert found["hour"]["times"] == []
    assert found["learnt"] == {
        "categories": [],
        "more": 0,
        "limits": found["learnt"]["limits"],
    }


def test_the_stream_goes_on(monkeypatch):
    monkeypatch.setattr(page_routes, "EVERY_S", 0.01)

    async def scenario(session, overview):
        async with session.get("/page/events") as answer:
            await events(answer, {"now"})
            overview.tell(0, Digest({"dualpool_decisions_total short fits": 3.0}))
            while not (await events(answer, {"now"}))["now"]["pools"][0]["reasons"]:
                pass

    serving(scenario)


def test_a_stream_ends_so_that_the_browser_opens_another(monkeypatch):
    monkeypatch.setattr(page_routes, "EVERY_S", 0.01)
    monkeypatch.setattr(page_routes, "WATCH_S", 0.1)

    async def scenario(session, _):
        async with session.get("/page/events") as answer:
            return await answer.read()

    assert serving(scenario).endswith(b"\n\n")


def test_streams_are_bounded_and_their_places_are_given_back(monkeypatch):
    monkeypatch.setattr(page_routes, "MOST_WATCHERS", 2)
    monkeypatch.setattr(page_routes, "EVERY_S", 0.01)

    async def scenario(session, _):
        first, second, third = [await session.get("/page/events") for _ in range(3)]
        statuses = first.status, second.status, third.status
        first.close()
        while (again := await session.get("/page/events")).status != 200:
            await asyncio.sleep(0.01)
        again.close()
        second.close()
        return statuses

    assert serving(scenario) == (200, 200, 503)


def test_an_open_stream_does_not_delay_the_stop():
    async def main():
        server, _ = build()
        port = await server.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /page/events HTTP/1.1\r\nhost: page.example\r\n\r\n")
        await reader.readuntil(b"event: now")
        start = time.monotonic()
        await server.stop()
        took_s = time.monotonic() - start
        writer.close()
        await writer.wait_closed()
        return took_s

    assert asyncio.run(main()) < page_routes.EVERY_S


@pytest.mark.parametrize("path", ["/page/events", EXPLAIN])
def test_the_figures_need_the_token(path, token):
    async def scenario(session, _):
        method = "POST" if path == EXPLAIN else "GET"
        statuses = []
        for sent in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer sesame"}):
            body = BODY if method == "POST" else None
            async with session.request(method, path, data=body, headers=sent | JSON) as answer:
                statuses.append(answer.status)
        return statuses

    assert serving(scenario, token) == [401, 401, 200]


def test_a_body_is_explained():
    async def scenario(session, _):
        return await post(session)

    status, text = serving(scenario)
    found = json.loads(text)
    assert (status, found["pool"], found["reason"]) == (200, "short", "fits")
    assert found["budget_tokens"] == sum(
        found[part] for part in ("prompt_tokens", "margin_tokens", "output_tokens")
    )


def test_an_unreadable_body_is_explained():
    async def scenario(session, _):
        return await post(session, body=b"{")

    assert json.loads(serving(scenario)[1])["unreadable"]


def test_a_body_of_more_than_a_mebibyte_is_refused():
    async def scenario(session, _):
        return await post(session, body=io.BytesIO(b" " * ((1 << 20) + 1)))

    assert serving(scenario)[0] == 413


def test_a_path_without_a_prompt_is_refused():
    async def scenario(session, _):
        return await post(session, url="/page/explain?path=/v1/models")

    assert serving(scenario) == (400, "requests to this path carry no prompt\n")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded"])
def test_what_a_foreign_form_can_send_is_refused(kind):
    async def scenario(session, _):
        return await post(session, **{"content-type": kind})

    assert serving(scenario)[0] == 415


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-origin", 200)])
def test_another_site_is_refused(site, status):
    async def scenario(session, _):
        return await post(session, **{"sec-fetch-site": site})

    assert serving(scenario)[0] == status


def test_what_was_learnt_is_read_once_for_all_streams(monkeypatch):
    monkeypatch.setattr(page_routes, "EVERY_S", 0.01)
    reads = 0

    async def write_learnt():
        nonlocal reads
        reads += 1
        return b"{}"

    async def scenario(session, _):
        for _ in range(5):
            async with session.get("/page/events") as answer:
                await events(answer, {"learnt"})

    access = page_routes.Access
    monkeypatch.setattr(
        "extproc.service.http.Access",
        lambda *given: replace(access(*given), write_learnt=write_learnt),
    )
    serving(scenario)
    assert reads == 1
