"""Names that several rooms share: headers and metadata in Envoy, and the package's extras."""

from typing import Final

POOL_HEADER: Final = "x-llm-pool"
REASON_HEADER: Final = "x-llm-reason"
BUDGET_HEADER: Final = "x-llm-budget"
CATEGORY_HEADER: Final = "x-llm-category"
BASIS_HEADER: Final = "x-llm-basis"
PREFIX: Final = "x-llm-"
SHADOW_PREFIX: Final = "x-llm-shadow-"
"""Begins the names of the headers in place of PREFIX where no route may look at a decision."""
RETRYABLE_HEADER: Final = "x-llm-retryable"
"""Tells Envoy's retry policy that a 400 of this pool may mean that the request is too long."""

ROW_HEADER: Final = "x-llm-row"
"""The largest pool of a request's row, as Envoy has read it itself where no pool was chosen."""
UNDECIDED: Final = "undecided"
"""What figures call the pool of a request that Envoy chooses a pool for; no pool has this name."""

NAMESPACE: Final = "llm"
"""Dynamic metadata namespace of the note from the routing filter to the observing one."""
NOTE: Final = "routed"
"""The key of the note in it; Envoy skips the observing filter for requests without one."""
HIDES_USAGE: Final = "hides_usage"
"""Set in that namespace by Envoy's filter that removes usage from flagged streams."""
HIDE_USAGE: Final = "hide_usage"
"""Flags a stream for that filter."""
USAGE_METADATA: Final = "envoy.ai.token_usage"
"""Typed metadata of Envoy's ai_protocol_manager."""


def install_hint(extra: str) -> str:
    """Return what installs an extra; Dualpool is installed from its sources, not from PyPI."""
    return f"run pip install '.[{extra}]' in the folder of Dualpool's sources"
