"""The safety net of a decision: the largest pool of the row gets what a smaller pool refuses.

Judged are the requests that the service marks with x-llm-retryable: which route takes them, whether
its retry policy retries a refusal, and whether the retry goes to the largest pool. An Envoy without
any of this has no net, which is noted; one that is incomplete is a fault.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from extproc.envoy.document import Finding, Part
from extproc.envoy.gateway import takes_decision, targets
from extproc.envoy.pool_clusters import PoolClusters
from extproc.envoy.pool_gateway import PoolGateway, has_prompts
from extproc.envoy.route_match import SampleRequest, accepts_header, has_header, samples
from extproc.names import PREFIX, RETRYABLE_HEADER

# What servers answer to a prompt that their window cannot hold.
_REFUSALS = (400, 413)
# Envoy's default.
_RETRIES = 1
_HINT = "as `dualpool config envoy` prints it"


def net_findings(gateway: PoolGateway) -> Iterator[Finding]:
    """Yield why a refusal of a smaller pool is not retried on the largest, where it should be."""
    for case in _cases(gateway):
        if not case.has_none:
            yield from case.findings()


def net_remarks(gateway: PoolGateway) -> Iterator[Finding]:
    """Yield the routes without such a retry, and retry policies of types that are not known."""
    for case in _cases(gateway):
        if case.has_none:
            yield Finding(
                case.route.path,
                f"what {case.pool} refuses as too long is not retried on {case.largest}: "
                f"{case.missing_route}",
            )
        else:
            yield from (
                Finding(each.policy.path, "not checked: a retry policy of another type")
                for each in case.retries(case.route)
                if each.is_unknown
            )


@dataclass(frozen=True, slots=True)
class _Case:
    """A request for a smaller pool, marked as retryable, and the route that takes it."""

    gateway: PoolGateway
    host: Part
    request: SampleRequest
    route: Part
    pool: str
    largest: str
    unmarked: Part
    """The route that takes it without the mark."""

    @property
    def missing_route(self) -> str:
        """What to add."""
        return f"add a route for x-llm-pool: {self.pool} and {RETRYABLE_HEADER}: 1, {_HINT}"

    @property
    def has_none(self) -> bool:
        """Whether nothing in the virtual host shows that a refusal is to be retried."""
        routes = self.host.at("routes").items()
        if any(has_header(each.at("match"), RETRYABLE_HEADER) for each in routes):
            return False
        return not any(each.is_begun for each in self.retries(self.route))

    def retries(self, route: Part) -> "list[_Retry]":
        """Return how a route retries the request, for each of its clusters."""
        names = targets(route.at("route"))
        if takes_decision(route):
            names = [Part(route.at("route", "cluster_header").path, self.pool)]
        return [
            _Retry(
                self.gateway.fleet,
                self.request,
                self.pool,
                self.largest,
                name,
                _policy(route, self.host, self.gateway.fleet.clusters.get(name.text)),
            )
            for name in names
        ]

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong."""
        if not _takes(self.route, self.gateway.fleet, self.pool):
            yield self._astray()
            return
        found = [fault for each in self.retries(self.route) for fault in each.faults()]
        if not found:
            return
        if (better := self._hidden()) is not None:
            name = better.at("name").text or better.path.rpartition(".")[2]
            yield Finding(
                self.route.path,
                f"this route hides {name}, which retries on {self.largest} what {self.pool} "
                "refuses: move that route before it",
            )
        elif has_header(self.route.at("match"), RETRYABLE_HEADER) or any(
            each.retries_any for each in self.retries(self.route)
        ):
            yield from found
        else:
            yield Finding(
                self.route.path,
                f"no route before this one retries on {self.largest} what {self.pool} refuses: "
                f"{self.missing_route}",
            )

    def _astray(self) -> Finding:
        name = next(iter(targets(self.route.at("route"))), self.route)
        wanted = next((each.name.text for each in self.retries(self.unmarked)), self.pool)
        text = (
            f"requests for {self.pool} with {RETRYABLE_HEADER} go elsewhere: send them to {wanted}"
        )
        return Finding(name.path, text)

    def _hidden(self) -> Part | None:
        """Return the later route that the request should take, if there is one."""
        for route in self.gateway.decided(self.host, self.request):
            if _takes(route, self.gateway.fleet, self.pool) and not any(
                fault for each in self.retries(route) for fault in each.faults()
            ):
                return route
        return None


@dataclass(frozen=True, slots=True)
class _Retry:
    """How a request is retried that the pool has refused, on the cluster of this name."""

    fleet: PoolClusters
    request: SampleRequest
    pool: str
    largest: str
    name: Part
    policy: Part

    @property
    def is_unknown(self) -> bool:
        """Whether the policy is an extension's."""
        return self.policy.at("@type").present

    @property
    def retries_any(self) -> bool:
        """Whether it retries a refusal."""
        return any(_retries(self.policy, status) for status in _REFUSALS)

    @property
    def is_begun(self) -> bool:
        """Whether a part of the net is there."""
        return self.is_unknown or self.retries_any or self.largest in self._order

    @property
    def _cluster(self) -> Part:
        return self.fleet.clusters.get(self.name.text, Part("", None))

    @property
    def _order(self) -> tuple[str, ...]:
        """The pools in the order in which attempts reach them."""
        known = self.fleet.leads_to(self.name.text)
        return ("", *known) if self.fleet.is_open(self.name.text) else known

    def faults(self) -> Iterator[Finding]:
        """Yield each reason why the retry does not come about, or goes elsewhere."""
        if self.is_unknown:
            return
        yield from self._policy_faults() if self.policy.present else (self._unretried(),)
        if self.largest not in self._order:
            yield self._unreachable()
        elif self.policy.present:
            yield from self._order_faults()

    def _unretried(self) -> Finding:
        text = f"what {self.pool} refuses is not retried on {self.largest}: add one, {_HINT}"
        return Finding(self.policy.path, text)

    def _policy_faults(self) -> Iterator[Finding]:
        lost = [status for status in _REFUSALS if not _retries(self.policy, status)]
        if lost:
            listed = " and ".join(map(str, lost))
            what = f"{listed} of {self.pool} {'is' if len(lost) == 1 else 'are'} not retried"
            codes = self.policy.at("retriable_status_codes")
            if {each.number for each in codes.items()} >= {*lost}:
                path, fix = self.policy.at("retry_on").path, "add retriable-status-codes"
            else:
                path, fix = codes.path, f"add {', '.join(map(str, lost))}"
            yield Finding(path, f"{what} on {self.largest}: {fix}")
        asked = self.policy.at("retriable_request_headers")
        if asked.items() and not any(_may_hold(each, self.request) for each in asked.items()):
            yield Finding(
                asked.path,
                f"what {self.pool} refuses is not retried on {self.largest}, as its requests have "
                f"none of these: add {RETRYABLE_HEADER}",
            )

    def _unreachable(self) -> Finding:
        members = self._cluster.at("cluster_type", "typed_config", "clusters")
        if members.present:
            text = f"a retry cannot reach {self.largest}: add it behind {self.pool}"
            return Finding(members.path, text)
        return Finding(
            self.name.path,
            f"{self.name.text} has no server of {self.largest}, so a retry goes to {self.pool} "
            f"again: set an aggregate cluster of {self.pool} and {self.largest}",
        )

    def _order_faults(self) -> Iterator[Finding]:
        priority, retries = self.policy.at("retry_priority"), self.policy.at("num_retries")
        needed = self._order.index(self.largest)
        kind = self._cluster.at("cluster_type", "typed_config", "@type").text
        if not kind.endswith(".composite.v3.ClusterConfig"):
            if not priority.present:
                yield Finding(
                    priority.path,
                    f"a retry may go to {self.pool} again: add "
                    "envoy.retry_priorities.previous_priorities with update_frequency 1",
                )
                return
            needed *= priority.at("typed_config", "update_frequency").number or 1
        given = _RETRIES if retries.number is None else retries.number
        if given < needed:
            text = f"the retries end before {self.largest}, {given} of {needed}: set {needed}"
            yield Finding(retries.path, text)


def _cases(gateway: PoolGateway) -> Iterator[_Case]:
    """Yield each route that takes marked requests for a smaller pool, with one of them."""
    seen = set[tuple[str, str]]()
    for host, request in _decided_requests(gateway):
        for row in gateway.settings.fleet:
            for pool in row.pools[:-1]:
                decided = request.with_pool(pool.name)
                marked = replace(decided, headers={**decided.headers, RETRYABLE_HEADER: "1"})
                unmarked = gateway.reached(host, decided)
                if unmarked is None or not _takes(unmarked, gateway.fleet, pool.name):
                    continue  # a fault of its own
                route = gateway.reached(host, marked) or host.at("routes")
                if (route.path, pool.name) not in seen:
                    seen.add((route.path, pool.name))
                    largest = row.pools[-1].name
                    yield _Case(gateway, host, marked, route, pool.name, largest, unmarked)


def _decided_requests(gateway: PoolGateway) -> Iterator[tuple[Part, SampleRequest]]:
    """Yield sample requests that the service chooses a pool for, with their virtual hosts."""
    for levels in gateway.pool_routes:
        if has_prompts(levels.route) and any(each.is_on(levels) for each in gateway.routers):
            for request in samples(levels.route.at("match")):
                entry = gateway.reached(levels.host, request.undecided())
                if entry is not None and entry.path == levels.route.path:
                    yield levels.host, request


def _takes(route: Part, fleet: PoolClusters, pool: str) -> bool:
    """Whether a route may lead to this pool first."""
    names = targets(route.at("route"))
    is_open = any(fleet.is_open(name.text) for name in names)
    return takes_decision(route) or is_open or fleet.prefers(route, pool)


def _policy(route: Part, host: Part, cluster: Part | None) -> Part:
    """Return the retry policy that Envoy applies; absent if there is none."""
    options = next(cluster.typed("HttpProtocolOptions"), None) if cluster else None
    if options is not None and options.at("retry_policy").present:
        return options.at("retry_policy")
    for level in (route.at("route"), host):
        for key in ("retry_policy", "retry_policy_typed_config"):
            if level.at(key).present:
                return level.at(key)
    return route.at("route", "retry_policy")


def _retries(policy: Part, status: int) -> bool:
    """Whether a policy retries an answer of this status."""
    reasons = {reason.strip() for reason in policy.at("retry_on").text.split(",")}
    codes = {each.number for each in policy.at("retriable_status_codes").items()}
    if "retriable-status-codes" in reasons and status in codes:
        return True
    return "retriable-headers" in reasons and any(
        header.at("name").text == ":status" and _holds(header, ":status", str(status))
        for header in policy.at("retriable_headers").items()
    )


def _may_hold(header: Part, request: SampleRequest) -> bool:
    """Whether a request may meet a condition: of a client's own headers that is not known."""
    name = header.at("name").text.lower()
    if name.startswith(PREFIX):
        return name in request.headers and _holds(header, name, request.headers[name])
    return True


def _holds(header: Part, name: str, value: str) -> bool:
    return accepts_header(Part(header.path, {"headers": [header.value]}), name, value)
