"""The objects that put the service behind Envoy Gateway: its own fields alone, no patches.

Envoy Gateway matches a header but not its absence. So x-llm-pool is never absent: it has the value
NOT_DECIDED until the service has answered.
"""

from collections.abc import Iterator, Sequence

from extproc import names
from extproc.config.keys import Fault
from extproc.config.settings import Settings
from extproc.envoy.kubernetes import ObjectName, client_secret, gateway_faults, gateway_settings
from extproc.envoy.number_regex import digits_between, digits_from
from extproc.envoy.render import PoolCluster, refuse, render_template

# No pool has such a name, because of the underscore.
NOT_DECIDED = "not_decided"
# Gateway API's limit of the rules of a route, of which each smaller pool takes four.
_MOST_POOLS = 4
_DECISION = (
    names.REASON_HEADER,
    names.BUDGET_HEADER,
    names.CATEGORY_HEADER,
    names.BASIS_HEADER,
    names.RETRYABLE_HEADER,
)


def render_envoy_gateway(settings: Settings, gateway: str) -> str:
    """Return the objects as YAML, for a Gateway NAMESPACE/NAME.

    Raises RenderError with every fault, or UserError for the Gateway.
    """
    refuse((*gateway_faults(settings), *_rule_faults(settings)))
    secret = client_secret(settings)
    settings = gateway_settings(settings).routed
    return render_template(
        "gateway/routing.yaml.j2",
        settings,
        gateway=ObjectName.of_gateway(gateway),
        dualpool=ObjectName.of_service(settings),
        secret=secret,
        marker=NOT_DECIDED,
        decision_headers=_stripped(settings),
        digits_between=digits_between,
        digits_from=digits_from,
        named=_named,
    )


def _stripped(settings: Settings) -> tuple[str, ...]:
    """Return the headers that no client may send."""
    if not settings.shadow:
        return _DECISION
    told = (names.POOL_HEADER, *_DECISION)
    return (*_DECISION, *(names.SHADOW_PREFIX + name.removeprefix(names.PREFIX) for name in told))


def _rule_faults(settings: Settings) -> Iterator[Fault]:
    if settings.rows:
        text = (
            "Envoy Gateway cannot route by the model in a body, so an outage of the service would "
            "mix the rows; write one file with pools, and one Gateway, for each row"
        )
        yield ("rows",), text
    elif (count := len(settings.pools)) > _MOST_POOLS:
        text = f"{count} need more rules than an HTTPRoute can have; Envoy Gateway takes "
        yield ("pools",), f"{text}{_MOST_POOLS} pools"


def _named(pools: Sequence[PoolCluster], suffix: str) -> list[str]:
    """Return the names of the pools' rules of one kind."""
    return [f"{pool.name}{suffix}" for pool in pools]
