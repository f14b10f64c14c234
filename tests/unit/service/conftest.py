"""A clock that tests set, and the servers that one suite holds to the same."""

import pytest

from tests.support.transports import TRANSPORTS


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=TRANSPORTS)
def serve_on(request):
    """A server of each transport."""
    return TRANSPORTS[request.param]
