"""The page in a real Chromium, before a service that a conversation has taught."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from axe_playwright_python.sync_playwright import Axe  # noqa: E402

from extproc.simulator.pool.answer import describe_models  # noqa: E402
from tests.support import running_service  # noqa: E402
from tests.support.chromium import ARGUMENTS, find_chromium  # noqa: E402
from tests.support.http_server import Answering, serving_http  # noqa: E402
from tests.support.redis_server import needs_redis, redis_server  # noqa: E402
from tests.support.running_service import serving  # noqa: E402
from tests.unit.routing.load.test_report import VLLM  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not find_chromium(), reason="no Chromium: apt-get install chromium"),
]


def converse(port, name):
    """Play a conversation, in a thread: playwright's loop runs in this one."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(running_service.converse, port, name).result()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """A service's gRPC port and HTTP address, which has learnt from one answer."""
    with serving(tmp_path_factory.mktemp("service")) as (_, port, url):
        converse(port, "observed")
        yield port, url


@contextmanager
def opened(browser, url, **options):
    """Open the page; yield it. Any message of the console is an error: CSP reports there too."""
    context = browser.new_context(**options)
    page = context.new_page()
    messages = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert messages == []


@pytest.fixture
def page(browser, service):
    with opened(browser, service[1]) as given:
        yield given


def text(page, selector):
    return page.locator(selector).inner_text()


def has(page, selector, pattern):
    playwright.expect(page.locator(selector)).to_contain_text(re.compile(pattern), timeout=40_000)


class Server(Answering):
    """A server of a pool that has a smaller window than the settings say, and a queue."""

    def found(self):
        models = describe_models("m", 4096, 0, "x")
        return 200, models if self.path == "/v1/models" else VLLM


def test_it_shows_the_load_and_the_windows_that_servers_state(browser, tmp_path):
    with serving_http(Server) as address:
        more = (
            f"pools: [{{name: short, max_model_len: 8192, address: '{address}'}}, "
            "{name: long, max_model_len: 65536, address: '127.0.0.1:9'}]\n"
            "load: {spill: true, discover: true}\n"
        )
        with serving(tmp_path, more=more) as (_, _, url), opened(browser, url) as page:
            has(page, "#loads tbody", r"short\s*known\s*1 of 1\s*32\s*7\.0")
            has(page, "#loads tbody", r"long\s*unknown\s*0 of 1\s*–")
            has(page, "#pools tbody", r"short\s*4,096 \(settings: 8,192\)")
            assert violations(page) == []


def test_without_load_none_is_shown(page):
    has(page, "#pools tbody", "short")
    assert not page.locator("#loads-section").is_visible()


def test_it_says_where_what_is_learnt_is_kept(browser, tmp_path):
    more = f"state: 'file:{tmp_path / 'state'}'\n"
    with serving(tmp_path, more=more) as (_, _, url), opened(browser, url) as page:
        has(page, "#kept", "Kept in a file, not written yet")


def test_without_a_state_none_is_shown(page):
    has(page, "#pools tbody", "short")
    assert not page.locator("#kept").is_visible()


@needs_redis
def test_it_shows_replicas_and_whether_they_agree(browser, tmp_path):
    with redis_server(tmp_path) as server:
        more = f"state: 'redis://127.0.0.1:{server.port}'\n"
        with serving(tmp_path, more=more) as (_, _, url), opened(browser, url) as page:
            has(page, "#kept", "Shared by 1 replica: all hold the same")
            assert violations(page) == []


def test_it_shows_pools_and_what_was_learnt(page):
    has(page, "#state", "calibrated estimator · 1 of 1 process ready")
    has(page, "#pools tbody", r"short\s*8,192\s*8,192")
    has(page, "#pools tbody", r"long\s*65,536")
    has(page, "#learnt tbody", r"prose/m\s*1\s*borrowed")
    has(page, "#glance", "target 0.100 %")
    has(page, "#alerts", "none")


def test_a_shadow_says_that_nothing_is_moved(browser, tmp_path):
    with serving(tmp_path, more="shadow: true\n") as (_, port, url):
        converse(port, "observed")
        with opened(browser, url) as page:
            has(page, "#shadow", "Shadow: nothing is moved, all requests go to long.")
            has(page, "#glance", "of the requests would go there")
            assert violations(page) == []


def test_without_a_shadow_none_is_mentioned(page):
    has(page, "#pools tbody", "short")
    assert not page.locator("#shadow").is_visible()


def test_its_words_are_plain(page):
    has(page, "#learnt-more", r"misroutes forecast [\d.]+ %, target 0\.100 %")
    has(page, "#glance", "a smaller pool would have held them")
    has(page, "#pools tbody", r"long\s*65,536\s*65,536\s*[\d.]+\s*0\s*0\s*0\s*0")


# With these times shown: the pixels of the pool's colour, and the seconds that the axis spans.
DRAW = """async (times) => {
    const none = times.map(() => null);
    showHour({ times, pools: { short: times.map(() => 3) }, misrouted: none, over_routed: none });
    await new Promise(requestAnimationFrame);
    const drawn = document.querySelector("#traffic canvas");
    const copy = new OffscreenCanvas(drawn.width, drawn.height);
    const context = copy.getContext("2d", { willReadFrequently: true });
    context.drawImage(drawn, 0, 0);
    const { data } = context.getImageData(0, 0, copy.width, copy.height);
    const series = colour("--series-0").match(/#(..)(..)(..)/).slice(1).map((hex) => parseInt(hex, 16));
    let pixels = 0;
    for (let i = 0; i < data.length; i += 4) pixels += series.every((value, j) => data[i + j] === value);
    const { min, max } = plots.get("traffic").plot.scales.x;
    return [pixels, max - min];
}"""  # noqa: E501


def test_one_point_is_a_dot_in_a_minute(page):
    has(page, "#traffic-text", "short")
    pixels, seconds = page.evaluate(DRAW, [1000])
    assert pixels > 10
    assert seconds == 60


def test_before_the_first_point_it_is_collecting(page):
    has(page, "#pools tbody", "short")
    page.evaluate(DRAW, [])
    assert text(page, "#traffic-text") == "short collecting"


def test_it_follows_the_traffic(page, service):
    has(page, "#learnt tbody", "prose/m")
    has(page, "#hour-title", "The last hour")
    before = text(page, "#latest tbody").count("within short")
    converse(service[0], "buffered-short")
    playwright.expect(page.locator("#latest tbody tr", has_text="within short")).to_have_count(
        before + 1, timeout=40_000
    )
    has(page, "#latest tbody", r"short\s*fits\s*\S+ prompt \+ \S+ margin \+ \S+ output = \S+")


def test_the_hour_is_drawn(page):
    playwright.expect(page.locator("#traffic canvas")).to_be_visible(timeout=40_000)
    has(page, "#traffic-text", r"short [\d.]+/s")
    has(page, "#misrouted-text", r"target 0.1 %")


def test_a_pasted_body_is_explained(page):
    has(page, "#pools tbody", "short")
    page.get_by_role("button", name="Explain").click()
    has(page, "#explanation", r"Pool short \(fits\): \d+ prompt \+ .* = .*, within short")
    page.fill("#body", '{"model": "m", "max_tokens": 20000, "messages": []}')
    page.get_by_role("button", name="Explain").click()
    has(page, "#explanation", r"Pool long \(capacity\)")
    page.fill("#body", "{")
    page.get_by_role("button", name="Explain").click()
    has(page, "#explanation", "could not be read")


def test_a_name_is_shown_as_text(page):
    has(page, "#pools tbody", "short")
    page.fill("#body", '{"model": "<img src=x onerror=alert(1)>", "messages": []}')
    page.get_by_role("button", name="Explain").click()
    has(page, "#explanation", "<img src=x")
    assert page.locator("#explanation img").count() == 0


def test_a_script_of_another_place_is_refused(browser, service):
    context = browser.new_context()
    page = context.new_page()
    page.goto(service[1])
    refused = page.evaluate(
        """() => new Promise((resolve) => {
            const refused = (event) => resolve(event.violatedDirective);
            document.addEventListener("securitypolicyviolation", refused);
            const script = document.createElement("script");
            script.textContent = "document.title = 'taken'";
            document.head.append(script);
        })"""
    )
    assert refused.startswith("script-src")
    assert page.title() == "Dualpool"
    context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_it_needs_no_horizontal_scrolling(browser, service, width):
    with opened(browser, service[1], viewport={"width": width, "height": 844}) as page:
        has(page, "#learnt tbody", "prose/m")
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, service, scheme):
    with opened(browser, service[1], color_scheme=scheme) as page:
        has(page, "#learnt tbody", "prose/m")
        page.get_by_role("button", name="Explain").click()
        has(page, "#explanation", "Pool")
        assert violations(page) == []


def violations(page):
    """Return what axe-core finds, of any impact."""
    found = Axe().run(page).response["violations"]
    return [(each["id"], each["impact"]) for each in found]


def test_dark_and_light_differ(browser, service):
    def ground(scheme):
        with opened(browser, service[1], color_scheme=scheme) as page:
            return page.evaluate("getComputedStyle(document.body).backgroundColor")

    assert ground("dark") != ground("light")


def test_with_a_token_nothing_is_shown_before_it_is_given(browser, tmp_path):
    (tmp_path / "token").write_text("sesame")
    with serving(tmp_path, token_file=tmp_path / "token") as (_, _port, url):
        context = browser.new_context()
        page = context.new_page()
        page.goto(url)
        has(page, "#state", "a token is needed")
        assert "short" not in text(page, "#pools tbody")
        page.get_by_label("Token", exact=True).fill("wrong")
        page.get_by_role("button", name="Show").click()
        has(page, "#state", "wrong token")
        page.get_by_label("Token", exact=True).fill("sesame")
        page.get_by_role("button", name="Show").click()
        has(page, "#pools tbody", "short")
        page.reload()
        has(page, "#pools tbody", "short")
        context.close()


def test_several_processes_are_one_page(browser, tmp_path):
    with serving(tmp_path, workers=2) as (_, port, url), opened(browser, url) as page:
        for worker in range(2):
            converse(port + worker, "observed")
            converse(port + worker, "buffered-short")
        has(page, "#state", "2 of 2 processes ready")
        has(page, "#pools tbody", r"short\s*8,192\s*8,192\s*[\d.]+\s*fits 2")
        has(page, "#learnt tbody", r"prose/m\s*2")
        has(page, "#latest tbody", "within short")


def test_it_says_that_the_service_is_gone(browser, tmp_path):
    context = browser.new_context()
    page = context.new_page()
    with serving(tmp_path) as (_, _port, url):
        page.goto(url)
        has(page, "#state", "1 of 1")
    has(page, "#state", "no figures")
    context.close()
