"""What tests of containers do where no Docker Engine can run."""

from pathlib import Path

import pytest

pytest.importorskip("docker", reason="these tests need: pip install '.[dev]'")

from tests.support import docker_engine


@pytest.mark.parametrize(
    ("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)]
)
def test_an_engine_that_does_not_come_up_skips_unless_it_is_required(
    required, outcome, monkeypatch
):
    monkeypatch.setattr(docker_engine, "DRIVER", Path("/bin/false"))
    monkeypatch.setenv(docker_engine.REQUIRED, required)
    with pytest.raises(outcome, match="the engine did not come up"), docker_engine.engine():
        pass
