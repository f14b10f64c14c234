"""Each implementation of a connection: our own, and libnghttp2 as a second opinion."""

import pytest

from tests.support.h2_dialogue import CONNECTIONS


@pytest.fixture(params=CONNECTIONS)
def connect(request):
    return CONNECTIONS[request.param]
