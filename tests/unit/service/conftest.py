"""A clock that tests set, and the servers that one suite holds to the same."""

import pytest

from tests.support.clock import Clock
from tests.support.transports import TRANSPORTS


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=TRANSPORTS)
def serve_on(request):
    """A server of each transport."""
    return TRANSPORTS[request.param]
