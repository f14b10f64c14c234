"""The transports that one suite holds to the same behaviour."""

from functools import partial

from extproc.config.settings import Transport
from extproc.service.grpc_server import GrpcServer
from extproc.service.h2_server import H2Server
from tests.support.ngh2_connection import Ngh2Connection

SERVED = (Transport.GRPC, Transport.H2)
"""Those that the service can be told to use."""
TRANSPORTS = {
    "grpc": GrpcServer,
    "h2": H2Server,
    "ngh2": partial(H2Server, connect=Ngh2Connection),
}
