"""What is concluded from the facts: every check, in the order in which to mend what they find."""

from collections.abc import Iterator
from typing import Final

from extproc.config.changes import changes, told
from extproc.doctor.facts import (
    EnvoyFacts,
    Facts,
    Served,
    ServiceFacts,
    Unseen,
    pools_of,
)
from extproc.doctor.finding import Ailment, Conclusion, Unchecked
from extproc.doctor.traffic_checks import traffic_checks
from extproc.envoy.review import review
from extproc.routing.load.discovery import describe_discord

LEAST_DAYS: Final = 14.0
"""Days before its end from which on a certificate is reported."""
_NAMES: Final = {
    "missing": "serve them on every server of the pool, or remove them from models of its row",
    "unlisted": "add them to models of the row if it is to serve them: it gets no request for them",
    "apart": "serve them on every server of the pool: the others answer 404",
}


def conclude(facts: Facts) -> tuple[Conclusion, ...]:
    """Return what is wrong, and what could not be judged."""
    return (
        *_service(facts),
        *_envoy(facts),
        *_windows(facts),
        *traffic_checks(facts),
        *_certificates(facts),
    )


def _service(facts: Facts) -> Iterator[Conclusion]:
    match facts.service:
        case Unseen(reason):
            fix = "start it, or give the address of listen.http with --service"
            yield Ailment("service", reason, fix)
        case ServiceFacts(ready=False):
            text = "/readyz states that the service does not accept streams"
            yield Ailment("service", text, "read its log; if it has just started, wait")
        case ServiceFacts(counts=counts) if counts.values.get("dualpool_state_connected") == 0:
            text = "the service does not share what it learns: it has no connection to the store"
            yield Ailment("store", text, "read its log, lines that begin with state:")
    # Without both there is nothing that settings are compared with.
    if isinstance(facts.service, ServiceFacts) or isinstance(facts.envoy, EnvoyFacts):
        yield from _settings(facts)


def _settings(facts: Facts) -> Iterator[Conclusion]:
    if facts.unstated:
        instead = "--config" if facts.file else "the defaults, as there is no --config"
        yield Unchecked("settings", f"{facts.unstated}; all is compared with {instead}")
    elif facts.file:
        found = changes(facts.file, facts.settings)
        # Flags of the service's command may set what it listens with.
        differ = {place: text for place, text in found.items() if place[0] != "listen"}
        if differ:
            yield Ailment(
                "settings",
                f"the service does not run with the file (file -> service): {told(differ)}",
                "load the file into the service, or leave out --config to look at what runs",
            )


def _envoy(facts: Facts) -> Iterator[Conclusion]:
    if isinstance(facts.envoy, Unseen):
        fix = "start it, or give the address of its admin with --envoy"
        yield Ailment("envoy", facts.envoy.reason, fix)
        return
    yield from _reach(facts.envoy)
    if facts.envoy.by_xds:
        yield Unchecked("filters", "a control plane delivers them; see `dualpool config`")
        return
    for finding in review(facts.settings, facts.envoy.bootstrap):
        # Its text is "what: how to fix it"; the path is long, and last.
        told, _, fix = finding.text.partition(": ")
        yield Ailment("filters", f"{told} (at {finding.path or 'http_filters'})", fix or told)


def _reach(envoy: EnvoyFacts) -> Iterator[Conclusion]:
    called = {p.at("grpc_service", "envoy_grpc", "cluster_name").text for p in envoy.processors()}
    for host in envoy.hosts:
        if host.cluster in called and host.failed:
            yield Ailment(
                "reach",
                f"Envoy cannot use the service at {host.address}: {', '.join(host.failed)}",
                "start the service there, or correct the address and TLS of Envoy's cluster "
                f"{host.cluster}",
            )
    missing = called - {host.cluster for host in envoy.hosts}
    for name in sorted(missing):
        text = f"Envoy knows no server of its cluster {name or '(without a name)'}"
        yield Ailment("reach", text, "give it the address of listen.grpc")


def _windows(facts: Facts) -> Iterator[Conclusion]:
    if isinstance(facts.envoy, EnvoyFacts):
        for pool, host in pools_of(facts.envoy, facts.settings):
            if host.failed:
                text = f"Envoy does not use {host.address} of {pool.name}: {', '.join(host.failed)}"
                yield Ailment("pools", text, "start the server, or correct pools.address")
    for served in facts.served:
        yield from _served(served)
    yield from _used(facts)
    yield from _names(facts)
    if isinstance(facts.envoy, Unseen):
        return
    # A shadow's smaller pools need not exist: no route leads to them.
    routed = facts.settings.pools[-1:] if facts.settings.shadow else facts.settings.pools
    unseen = {pool.name for pool in routed} - {s.pool.name for s in facts.served}
    for name in sorted(unseen):
        yield Unchecked("windows", f"Envoy states no server of pool {name}")


def _served(served: Served) -> Iterator[Conclusion]:
    pool, where = served.pool, f"{served.address} of {served.pool.name}"
    if isinstance(served.windows, Unseen):
        if served.windows.hangs:
            yield Ailment(
                "pools",
                f"{where} accepts connections, and Envoy uses it, but {served.windows.reason}",
                "look at its log and restart it; with envoy.pool_health a path such as /health, "
                "Envoy leaves such servers out",
            )
            return
        if served.windows.refused and served.unconnected:
            yield Ailment(
                "pools",
                f"{where} refuses connections, Envoy's too: {served.unconnected:.0f} of them",
                "start the server, or correct pools.address",
            )
            return
        yield Unchecked("windows", f"{where}: {served.windows.reason}")
        return
    for model, window in served.windows.items():
        if window != pool.max_model_len:
            yield Ailment(
                "windows",
                f"{where} serves {model[:80]} with {window} tokens, the settings say "
                f"{pool.max_model_len}",
                f"set max_model_len of {pool.name} to {window}, or start the server with "
                f"--max-model-len {pool.max_model_len}",
            )


def _used(facts: Facts) -> Iterator[Conclusion]:
    """Yield the windows that servers told the service, of servers that were not asked here."""
    used = facts.service.used if isinstance(facts.service, ServiceFacts) else {}
    asked = {each.pool.name for each in facts.served if not isinstance(each.windows, Unseen)}
    for name, stated in _windows_of(facts).items():
        if name not in asked and used.get(name, stated) < stated:
            yield Ailment(
                "windows",
                f"the service takes {name} to hold {used[name]} tokens, as one of its servers "
                f"states, the settings say {stated}",
                f"set max_model_len of {name} to {used[name]}, or start its servers with "
                f"--max-model-len {stated}",
            )


def _names(facts: Facts) -> Iterator[Conclusion]:
    """Yield the names of models that servers lack or have beside those of the settings."""
    discords = facts.service.discords if isinstance(facts.service, ServiceFacts) else {}
    for pool, discord in discords.items():
        for kind, text in describe_discord(discord, 0, 0).items():
            yield Ailment("models", f"{pool}: {text}", _NAMES[kind])


def _certificates(facts: Facts) -> Iterator[Conclusion]:
    if isinstance(facts.certificate, Unseen):
        yield Unchecked("certificates", facts.certificate.reason)
    known = facts.envoy.certificates if isinstance(facts.envoy, EnvoyFacts) else ()
    own = facts.certificate
    for each in (*known, *((own,) if own and not isinstance(own, Unseen) else ())):
        if each.days < LEAST_DAYS:
            when = f"expires in {each.days:.0f} days" if each.days > 0 else "has expired"
            fix = "renew it: Envoy and the service load it when its file changes"
            yield Ailment("certificates", f"{each.name} {when}", fix)


def _windows_of(facts: Facts) -> dict[str, int]:
    return {pool.name: pool.max_model_len for pool in facts.settings.pools}
