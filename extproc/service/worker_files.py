"""The metrics that worker processes write into files, added up."""

import struct
import time
from collections.abc import Iterable
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

_TRIES: Final = 20
_PAUSE_S: Final = 0.01


class WorkerFilesCollector(MultiProcessCollector):
    """Collects as its parent does, also while a worker starts; blocks for a fifth of a second."""

    def collect(self) -> Iterable[Metric]:
        """Add up the files. Raises struct.error if one stays without content."""
        for _ in range(_TRIES):
            try:
                return self._added_up()
            except struct.error:
                # A worker that starts opens its files before it gives them a size.
                time.sleep(_PAUSE_S)
        return self._added_up()

    def _added_up(self) -> Iterable[Metric]:
        metrics: Iterable[Metric] = super().collect()  # type: ignore[no-untyped-call]
        return metrics
