"""The settings: frozen values, each key with its unit, its limits and its default."""

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated

import msgspec

from extproc.config import keys
from extproc.config.addresses import HOST, HOST_PORT, MASTER_NAME, SERVER, STORE_USER, UNIX_PATH
from extproc.config.keys import Place, Section

MAX_POOLS = 16
MESSAGE_OVERHEAD = 1024
"""Bytes of a gRPC message beside the body in it."""

NEWEST_ENVOY = "1.40"
"""The only version with the form trailers."""

MAX_MODELS = 64
MAX_ROWS = 16
MAX_ROW_MODELS = 1024
ANY_MODEL = "*"
"""The pattern of every model's name."""

DROPPED = ("schema", "past_reasoning", "documents", "unused_tools", "template_arguments")
"""Kinds of text that a chat template may drop: those of request.prompt.Optional."""

_DROPPED = rf"({'|'.join(DROPPED)})"
_MAX_WINDOW = 1 << 24
_GIB = 1 << 30

_HEADER_CHARS = r"[a-z0-9!#$%&'*+.^_`|~-]*"
# fnmatch reads a [ without its ] as itself; written as [[] it is meant.
_MODEL_PATTERN = r"(?=[^\x00-\x1f\x7f]{1,256}\Z)([^\[]|\[(![^\n]|[^!])[^\]]*\])+"
_POOL_NAME = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# Credentials must not become category names, and Envoy strips x-llm-* from requests.
_CATEGORY_HEADER = rf"(?!(proxy-authorization|authorization|cookie)\Z|x-llm-){_HEADER_CHARS}"
# A credential is permitted where it names a tenant: it is hashed. A cookie changes too often.
_TENANT_HEADER = rf"(?!(proxy-authorization|cookie|set-cookie)\Z|x-llm-){_HEADER_CHARS}"


class EstimatorName(enum.StrEnum):
    """How the tokens of a text are estimated."""

    CALIBRATED = "calibrated"
    PAPER = "paper"


class Transport(enum.StrEnum):
    """What carries Envoy's streams; AUTO is H2 where it can be used, else GRPC."""

    AUTO = "auto"
    GRPC = "grpc"
    H2 = "h2"


class Form(enum.StrEnum):
    """How Envoy passes requests and answers to the service."""

    AUTO = "auto"
    TRAILERS = "trailers"
    OBSERVED = "observed"
    SINGLE = "single"


class FailOpen(enum.StrEnum):
    """Where Envoy sends a request that the service has not decided."""

    BY_SIZE = "by_size"
    LARGEST = "largest"


class StoredResponses(enum.StrEnum):
    """Where requests to /v1/responses go whose answers a pool may store."""

    ANY = "any"
    LARGEST = "largest"


class StickyBy(enum.StrEnum):
    """What tells the conversation of a request, which stays in its pool: routing.sticky.By."""

    NONE = "none"
    HEADER = "header"
    USER = "user"
    MESSAGES = "messages"


class StatedLimits(enum.StrEnum):
    """What an output limit that a request states means for its budget."""

    RESERVE = "reserve"
    HINT = "hint"


class LogLevel(enum.StrEnum):
    """The least level that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ListenSettings(Section):
    """Where the service listens."""

    grpc: str = keys.text(
        f"{HOST_PORT}|{UNIX_PATH}",
        "host:port or unix:/path for Envoy's streams; see workers",
        "host:port, the port from 0 (any free one) to 65535, or unix:/path",
        default="127.0.0.1:50051",
    )
    transport: Transport = keys.one_of(
        Transport.AUTO, "grpc; h2: less CPU, no TLS; auto: h2 if local without TLS"
    )
    http: str = keys.text(
        HOST_PORT,
        "host:port of the page, /metrics, /healthz, /readyz and /state",
        "host:port, the port from 0 (any free one) to 65535",
        default="127.0.0.1:8081",
    )
    http_token_file: str = keys.secret("bearer token of the page, /state, /lengths; empty: none")
    max_message_bytes: int = keys.whole(
        "bytes", 1 << 16, _GIB, "the largest gRPC message that is read", default=1 << 26
    )
    notice_s: int = keys.whole("seconds", 0, 600, "from SIGTERM to refusing new streams", default=3)
    drain_s: int = keys.whole("seconds", 0, 3600, "then, for open streams to end", default=30)
    body_timeout_s: int = keys.whole(
        "seconds",
        1,
        86_400,
        "for a body to arrive; then it passes on unread",
        # Envoy's guide for edge proxies gives a whole request as long.
        default=300,
    )
    max_streams: int = keys.whole(
        "streams",
        1,
        1 << 20,
        "open at once, up to 30 KB each; one for each answer",
        # 360 MB, of the 512 MB that docker-compose.yml gives the service.
        default=12_000,
    )
    busy_share: float = keys.key(
        "share of envoy.message_timeout_ms; later: size decides; 0: off",
        "a share of the time limit from 0 to 1",
        # Head and body of a request wait one after the other.
        default=0.5,
        ge=0,
        le=1,
    )
    tls_cert: str = keys.file("the service's certificate, PEM; empty: no TLS")
    tls_key: str = keys.secret("its key, PEM")
    tls_client_ca: str = keys.file("who signs Envoy's; empty: no client certificate")


class PoolSettings(Section):
    """One pool: the servers of one max_model_len, behind one Envoy cluster."""

    name: str = keys.text(
        _POOL_NAME,
        "Envoy's cluster and the value of x-llm-pool",
        "1 to 63 lower-case letters, digits and inner hyphens (a number in quotes)",
    )
    max_model_len: int = keys.whole(
        "tokens", 1, _MAX_WINDOW, "prompt and completion of one sequence"
    )
    threshold: int = keys.whole(
        "tokens",
        1,
        _MAX_WINDOW,
        "the largest budget that the pool is given",
        derive=lambda pool: pool.max_model_len,
    )
    address: str = keys.text(
        rf"({SERVER})(, ?({SERVER})){{0,63}}",
        "host:port of each server, with commas",
        "host:port, without http:// and path, the port from 1 to 65535, or up to 64 of them with "
        "commas",
        derive=lambda pool: f"{pool.name}:8000",
    )
    tls_ca: str = keys.file("who signs their certificates, PEM; empty: no TLS")
    tls_name: str = keys.text(
        f"|{HOST}",
        "name in their certificates; empty: the first host",
        "empty, or a host name or an IPv4 address",
        default="",
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, each host:port."""
        return tuple(text.strip() for text in self.address.split(","))


class ModelSettings(Section):
    """What no request shows of the models of these names: saves the service to learn it."""

    name: str = keys.text(
        _MODEL_PATTERN,
        "pattern of model names: * any characters, ? one, [ab] one of these",
        "a name or a pattern of 1 to 256 characters, each [ with its ] (a number in quotes)",
    )
    max_pixels: int = keys.limit(
        "pixels", 1 << 32, "to which an image is shrunk, as of mm_processor_kwargs", default=0
    )
    image_tokens: int = keys.whole(
        "tokens", 0, _MAX_WINDOW, "of every image; 0: unknown, or they differ", default=0
    )
    drops: str = keys.text(
        rf"({_DROPPED}(, ?{_DROPPED})*)?",
        "what the chat template never renders, with commas",
        f"empty, or with commas any of {', '.join(DROPPED)}",
        default="",
    )
    tokenizer: str = keys.file("its tokenizer.json, to count short prompts; empty: estimated")

    @property
    def dropped(self) -> tuple[str, ...]:
        """The kinds of text that are dropped."""
        return tuple(kind.strip() for kind in self.drops.split(",")) if self.drops else ()


# One `*`, whose matching costs the same whatever name a client sends.
_ROW_MODEL = Annotated[
    str, msgspec.Meta(pattern=r"\A(?!.*\*.*\*)[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,256}\Z")
]


class RowSettings(Section):
    """The pools of some models, in ascending order of their windows."""

    models: tuple[_ROW_MODEL, ...] = keys.key(
        "names, aliases and adapters that its servers have; a *: any text",
        f"a list of 1 to {MAX_ROW_MODELS} names of up to 256 characters, one * in a name at most",
        count=(1, MAX_ROW_MODELS),
    )
    pools: tuple[PoolSettings, ...] = keys.key(
        "in ascending max_model_len", f"a list of 1 to {MAX_POOLS} pools"
    )


class BudgetSettings(Section):
    """How the tokens of a request are estimated; from `beta` on, as in arXiv 2604.08075."""

    estimator: EstimatorName = keys.one_of(
        EstimatorName.CALIBRATED, "calibrated to the target; paper: a ratio less its deviation"
    )
    target: float = keys.key(
        "calibrated: share of requests that may be misrouted",
        "a share of requests from 0.00001 to 0.1",
        default=0.001,
        ge=0.00001,
        le=0.1,
    )
    stated_limits: StatedLimits = keys.one_of(
        StatedLimits.RESERVE, "max_tokens counts in full; hint: what is used"
    )
    prefixes: int = keys.whole(
        "digests", 0, 1 << 20, "beginnings of conversations to remember; 0: none", default=0
    )
    count_bytes: int = keys.whole(
        "bytes",
        0,
        1 << 14,
        "the longest text that models.tokenizer counts",
        default=1 << 14,
    )
    beta: float = keys.key(
        "paper: share of the past in the running means",
        "a number above 0 and below 1",
        default=0.95,
        gt=0,
        lt=1,
    )
    gamma: float = keys.key(
        "paper: deviations by which the ratio is lowered",
        "a number of deviations from 0 to 10",
        default=1.0,
        ge=0,
        le=10,
    )
    prior_bytes_per_token: float = keys.key(
        "paper: bytes per token, until a category has learnt",
        "a number of bytes per token from 0.1 to 100",
        default=4.0,
        ge=0.1,
        le=100,
    )
    default_output_tokens: int = keys.whole(
        "tokens", 0, _MAX_WINDOW, "paper: reserved where a request states no limit", default=1024
    )


class CategorySettings(Section):
    """Which requests share one ratio of bytes to tokens."""

    header: str = keys.text(
        _CATEGORY_HEADER,
        "set by your gateway alone, names it; empty: by content",
        "empty, or a header's name in lower case, no (proxy-)authorization, cookie or x-llm-*",
        default="",
    )
    max: int = keys.whole("categories", 2, 1024, "further ones are folded into `other`", default=64)
    models: int = keys.whole("model names", 2, 4096, "told apart; further ones share", default=256)


class TenantSettings(Section):
    """Whose answers are kept apart; the estimator `paper` does not tell tenants apart."""

    # Empty by default: a header that clients can set would let each of them be many tenants.
    header: str = keys.text(
        _TENANT_HEADER,
        "set by your gateway alone, names one; empty: all share",
        "empty, or a header's name in lower case, no proxy-authorization, (set-)cookie or x-llm-*",
        default="",
    )
    max: int = keys.whole(
        "tenants",
        1,
        4096,
        "kept apart, up to 750 KB each; further ones share",
        # 96 MB, of the 512 MB that docker-compose.yml gives the service.
        default=128,
    )
    key_file: str = keys.secret("secret of their hashes, for replicas; empty: random")


class RequestSettings(Section):
    """What is read of a request."""

    max_body_bytes: int = keys.whole(
        "bytes",
        1024,
        _GIB,
        "a larger body gets Envoy's 413",
        default=1 << 25,
    )
    observe_sample: float = keys.key(
        "least share of answers that are read; 1: all",
        "a share of requests from 0.001 to 1",
        default=0.05,
        ge=0.001,
        le=1,
    )
    ask_usage: bool = keys.key("ask streams without usage for it", "true or false", default=True)
    # vLLM stores nothing unless it is started with VLLM_ENABLE_RESPONSES_API_STORE=1.
    stored_responses: StoredResponses = keys.one_of(
        StoredResponses.ANY, "for /v1/responses; largest: the pools store them"
    )


class LoadSettings(Section):
    """What the servers of the pools are asked, and what their load changes."""

    discover: bool = keys.key(
        "read /v1/models of servers, count samples at /tokenize", "true or false", default=False
    )
    spill: bool = keys.key(
        "requests leave a saturated pool for one that holds them", "true or false", default=False
    )
    # A quarter of the 2 s that arXiv 2604.08075 permits for the first token.
    wait_ms: int = keys.whole(
        "milliseconds", 10, 600_000, "expected in its queue: a pool is saturated", default=500
    )
    every_ms: int = keys.whole(
        "milliseconds", 50, 60_000, "between two questions to a server, with spill", default=250
    )
    timeout_ms: int = keys.whole("milliseconds", 10, 60_000, "for its answer", default=1000)

    @property
    def stale_s(self) -> float:
        """Seconds after which a report counts as missing."""
        return max(2.0, 4 * self.every_ms / 1000) + self.timeout_ms / 1000


class StickySettings(Section):
    """Conversations that stay in the pool whose prefix caches have them."""

    by: StickyBy = keys.one_of(
        StickyBy.NONE, "none; or what tells a conversation: header, user, messages"
    )
    header: str = keys.text(
        rf"(?=.){_CATEGORY_HEADER}",
        "by header: names the conversation",
        "a header's name in lower case, no (proxy-)authorization, cookie or x-llm-*",
        default="x-session-id",
    )
    max: int = keys.whole(
        "conversations",
        1,
        1 << 20,
        "remembered; by messages: requests",
        default=1 << 16,
    )


class TracingSettings(Section):
    """Traces of decisions and of what is learnt, and Envoy's own, by OpenTelemetry."""

    otlp: str = keys.text(
        rf"(http://{HOST_PORT})?",
        "http://host:port of an OTLP receiver (HTTP); empty: off",
        "empty, or http://host:port, such as http://otel-collector:4318",
        default="",
    )
    share: float = keys.key(
        "share of requests that are traced",
        "a share of requests from 0 to 1",
        default=0.01,
        ge=0,
        le=1,
    )
    usage: bool = keys.key(
        "send the tokens of answers there, as gen_ai.* metrics", "true or false", default=False
    )


class EnvoySettings(Section):
    """Envoy's configuration beside the pools, for `dualpool config envoy`."""

    version: str = keys.text(
        r"1\.(3[6-9]|40)",
        "Envoy's minor version, 1.36 to 1.40",
        "one of 1.36, 1.37, 1.38, 1.39 and 1.40, in quotes",
        default=NEWEST_ENVOY,
    )
    form: Form = keys.one_of(Form.AUTO, "trailers, observed or single; auto: trailers from 1.40 on")
    listen: str = keys.text(
        HOST_PORT, "host:port of the OpenAI API", "host:port", default="0.0.0.0:10000"
    )
    admin: str = keys.text(
        HOST_PORT, "host:port of Envoy's admin", "host:port", default="127.0.0.1:9901"
    )
    metrics: str = keys.text(
        f"|{HOST_PORT}",
        "host:port of Envoy's metrics and readiness alone; empty: none",
        "empty, or host:port",
        default="",
    )
    service: str = keys.text(
        HOST,
        "host of this service, for Envoy; see listen.grpc",
        "a host name or an IPv4 address",
        default="127.0.0.1",
    )
    message_timeout_ms: int = keys.whole(
        "milliseconds", 10, 60_000, "how long a request waits for us", default=1000
    )
    # By size, the largest pool does not get all traffic during an outage of the service.
    fail_open: FailOpen = keys.one_of(
        FailOpen.BY_SIZE, "by_size or largest: undecided requests go there"
    )
    # Of the traces that docs/outages.md replays, the most at which fewer than one answer in a
    # thousand is cut. A smaller pool's 400 is retried on the largest.
    fail_open_bytes_per_token: float = keys.key(
        "by_size: a body below pool.threshold times this fits",
        "a number of bytes per token from 0.1 to 100",
        default=2.5,
        ge=0.1,
        le=100,
    )
    # 1 MiB of text already fills a window of 200,000 tokens; 4 MiB leaves room for a photograph,
    # and bounds what one request can cost the service.
    large_body_bytes: int = keys.limit(
        "bytes", _GIB, "larger bodies pass unread, largest pool", default=1 << 22
    )
    # vLLM's own --h11-max-header-count.
    max_headers: int = keys.whole("headers", 32, 10_000, "of a request or an answer", default=256)
    # Envoy's default of 60, and room for what Envoy and the service add.
    max_header_kib: int = keys.whole("KiB", 8, 8192, "all headers of a message", default=96)
    # The next four are those of Envoy's guide for edge proxies, as are request_headers_timeout_s
    # and request_timeout_s; vLLM itself speaks no HTTP/2.
    max_streams: int = keys.limit(
        "streams", 1 << 30, "concurrent, of one HTTP/2 connection", default=100
    )
    stream_window_bytes: int = keys.whole(
        "bytes", 65_535, (1 << 31) - 1, "HTTP/2 window of a stream", default=65_536
    )
    connection_window_bytes: int = keys.whole(
        "bytes", 65_535, (1 << 31) - 1, "HTTP/2 window of a connection", default=1 << 20
    )
    buffer_bytes: int = keys.whole(
        "bytes", 4096, _GIB, "unsent data of a connection; then reading waits", default=32_768
    )
    # Above what two cores serve, below the file descriptors that a container usually has.
    max_connections: int = keys.limit("connections", 1 << 30, "of all clients", default=20_000)
    # Envoy's own default of 1024 would refuse requests that vLLM would queue.
    max_pool_requests: int = keys.limit("requests", 1 << 30, "in flight, per pool", default=10_000)
    # Below the 1 GiB that docker-compose.yml gives Envoy.
    max_heap_mib: int = keys.limit(
        "MiB", 1 << 20, "Envoy's heap, near which it sheds load", default=900
    )
    request_headers_timeout_s: int = keys.limit(
        "seconds", 86_400, "to receive all headers", default=10
    )
    request_timeout_s: int = keys.limit(
        "seconds", 86_400, "to receive the whole request", default=300
    )
    # Longer than any answer is silent, be it queued or not streamed; frees what a vanished client
    # has left behind.
    stream_idle_timeout_s: int = keys.limit(
        "seconds", 604_800, "without a byte in either direction", default=3600
    )
    # Envoy's own default.
    connection_idle_timeout_s: int = keys.limit(
        "seconds", 604_800, "a client's connection without requests", default=3600
    )
    connect_timeout_ms: int = keys.whole(
        "milliseconds", 10, 60_000, "to connect to a server of a pool", default=1000
    )
    # vLLM closes an idle connection after 5 s: no request may meet that moment.
    pool_idle_timeout_s: int = keys.limit(
        "seconds", 86_400, "a pool's connection without requests", default=3
    )
    # A live vLLM can read nothing for 30 s while it prepares a large prompt. Without this limit,
    # TCP takes 15 minutes to give up a server that is cut off.
    pool_silence_s: int = keys.limit(
        "seconds", 3600, "data that a server does not acknowledge", default=60
    )
    # To connect works with any server, and a vLLM that is busy is not taken for dead. A path also
    # detects a server that hangs.
    pool_health: str = keys.text(
        r"none|connect|/[!\"$->@-~]*",
        "health check of smaller pools: none, connect, path",
        "none, connect or a path such as /health, without a query",
        default="connect",
    )
    tls_ca: str = keys.file("who signs listen.tls_cert; empty: no TLS")
    tls_cert: str = keys.file("Envoy's own certificate, PEM")
    tls_key: str = keys.secret("its key, PEM")

    def undecided_bytes(self, pool: PoolSettings) -> int:
        """Return the length from which on a body no longer fits a pool, if only it is known."""
        return int(pool.threshold * self.fail_open_bytes_per_token)


_TWO_POOLS = (
    PoolSettings(name="short", max_model_len=8192, threshold=8192),
    PoolSettings(name="long", max_model_len=65536),
)


class Settings(Section):
    """All settings; `load` also checks the rules that span several keys."""

    listen: ListenSettings = keys.section(ListenSettings(), "addresses")
    workers: int = keys.whole(
        "processes", 1, 256, "at port, port + 1 ... or PATH.0, PATH.1 ...", default=1
    )
    rows: tuple[RowSettings, ...] = keys.key(
        "{models, pools} of several models, instead of pools",
        f"a list of up to {MAX_ROWS} rows, each of models and pools",
        count=(0, MAX_ROWS),
        default=(),
    )
    pools: tuple[PoolSettings, ...] = keys.key(
        "in ascending max_model_len",
        f"a list of 1 to {MAX_POOLS} pools",
        # Those of all rows, one row after the other.
        derive=lambda of: tuple(pool for row in of.rows for pool in row.pools) or _TWO_POOLS,
    )
    models: tuple[ModelSettings, ...] = keys.key(
        "what no request shows of them; the first that matches counts",
        f"a list of up to {MAX_MODELS} models",
        count=(0, MAX_MODELS),
        default=(),
    )
    budget: BudgetSettings = keys.section(BudgetSettings(), "a request's tokens")
    categories: CategorySettings = keys.section(
        CategorySettings(), "which requests share one ratio"
    )
    tenants: TenantSettings = keys.section(TenantSettings(), "whose answers are kept apart")
    state: str = keys.text(
        rf"|file:/[^\x00-\x1f\x7f]*|rediss?://({STORE_USER}@)?{HOST_PORT}(/[0-9]{{1,3}})?"
        rf"|redis\+sentinel://({STORE_USER}@)?({HOST_PORT})(,({HOST_PORT})){{0,8}}"
        rf"/{MASTER_NAME}(/[0-9]{{1,3}})?",
        "file:/PATH keeps, redis://HOST:PORT shares what was learnt",
        "empty, file: and the absolute path of a file, or redis://[USER@]HOST:PORT[/DATABASE] "
        "(rediss:// with TLS, redis+sentinel://[USER@]HOST:PORT[,HOST:PORT]/NAME[/DATABASE] by "
        "Sentinels; its password belongs into state_password_file)",
        default="",
    )
    state_password_file: str = keys.secret("password of the redis:// of state")
    state_ca_file: str = keys.file("CA of a rediss:// of state; empty: the system's")
    requests: RequestSettings = keys.section(RequestSettings(), "what is read")
    load: LoadSettings = keys.section(LoadSettings(), "of the pools' servers")
    sticky: StickySettings = keys.section(StickySettings(), "conversations stay in their pool")
    shadow: bool = keys.key(
        "decide and learn, but leave all to the largest pool", "true or false", default=False
    )
    tracing: TracingSettings = keys.section(TracingSettings(), "traces, by OpenTelemetry")
    envoy: EnvoySettings = keys.section(EnvoySettings(), "Envoy's configuration")
    log_level: LogLevel = keys.one_of(
        LogLevel.INFO, "debug, info, warning or error: the least that is logged"
    )

    @property
    def fleet(self) -> tuple[RowSettings, ...]:
        """The rows, at least one: `pools` are one for every model."""
        return self.rows or (RowSettings(models=(ANY_MODEL,), pools=self.pools),)

    @property
    def unnamed_row(self) -> RowSettings:
        """The row of what states no model: that of every other model, or else the first."""
        last = self.fleet[-1]
        return last if ANY_MODEL in last.models else self.fleet[0]

    def placed_pools(self) -> Iterator[tuple[Place, PoolSettings]]:
        """Yield each pool with its place in the file."""
        if not self.rows:
            yield from ((("pools", number), pool) for number, pool in enumerate(self.pools))
        for index, row in enumerate(self.rows):
            for number, pool in enumerate(row.pools):
                yield ("rows", index, "pools", number), pool

    @property
    def routed(self) -> "Settings":
        """The settings by which Envoy routes: of a shadow, those with the largest pool alone."""
        return self.model_copy(update={"pools": self.pools[-1:]}) if self.shadow else self

    @property
    def most_read_bytes(self) -> int:
        """The length above which Envoy decides by it alone; 0 if it never does."""
        if len(self.fleet) > 1:
            return 0  # nothing but the body says whose it is
        large = self.envoy.large_body_bytes
        return large if large < self.requests.max_body_bytes else 0


SECTIONS: Mapping[str, type[Section]] = {
    "listen": ListenSettings,
    "rows": RowSettings,
    "pools": PoolSettings,
    "models": ModelSettings,
    "budget": BudgetSettings,
    "categories": CategorySettings,
    "tenants": TenantSettings,
    "requests": RequestSettings,
    "load": LoadSettings,
    "sticky": StickySettings,
    "tracing": TracingSettings,
    "envoy": EnvoySettings,
}
