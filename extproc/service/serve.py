"""`dualpool serve`: one process or several, until a signal ends them."""

import logging

import uvloop

from extproc.config.settings import Settings
from extproc.service.process import Service, Stop, stop_on_signals
from extproc.service.supervisor import Supervisor


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then leave; at once on a second one.

    Raises OSError where it cannot listen, CertificateError where its certificates are wrong.
    """
    logging.basicConfig(
        level=settings.log_level.value.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = Stop()
    stop_on_signals(stop)
    service = Service(settings) if settings.workers == 1 else Supervisor(settings)
    await service.run(stop)
