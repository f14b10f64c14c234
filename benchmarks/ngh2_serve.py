"""`python -m benchmarks.ngh2_serve serve ...`: the service on libnghttp2, to compare with.

The transport h2 runs on the connection with which the tests check our own framing.
"""

import importlib
import sys
from functools import partial

from extproc.cli import main
from extproc.service import build
from extproc.service.h2_server import H2Server

if __name__ == "__main__":
    ngh2 = importlib.import_module("tests.support.ngh2_connection")
    vars(build)["H2Server"] = partial(H2Server, connect=ngh2.Ngh2Connection)
    sys.exit(main())
