"""One Docker Engine for all tests of containers."""

import pytest


@pytest.fixture(scope="session")
def started_engine():
    from tests.support.docker_engine import engine  # noqa: PLC0415 - its modules skip without docker

    with engine() as running:
        yield running


@pytest.fixture(scope="module")
def docker_engine(started_engine):
    with started_engine.inside():
        yield started_engine
