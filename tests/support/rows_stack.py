"""The service behind the real Envoy, with rows of pools for several models."""

import sys
from contextlib import ExitStack, contextmanager

import pytest
import yaml

from extproc.config.load import load
from extproc.envoy.render import render_envoy
from extproc.local.children import StackError
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.ports import free_ports
from tests.support.local_stack import fetch
from tests.support.production_stack import Fronted, started, wait_for


@contextmanager
def fronted_rows(folder, rows, model, **envoy):
    """Run Envoy and the service; yield when they decide for requests of the model.

    `rows` are those of a settings file, `envoy` further settings of its section.
    """
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    ports = free_ports()
    document = {
        "rows": rows,
        "listen": {
            "grpc": f"127.0.0.1:{ports.grpc}",
            "http": f"127.0.0.1:{ports.http}",
            "notice_s": 0,
            "drain_s": 0,
        },
        "requests": {"observe_sample": 1.0},
        "envoy": {
            "listen": f"127.0.0.1:{ports.listener}",
            "admin": f"127.0.0.1:{ports.admin}",
            "message_timeout_ms": 2000,
        }
        | envoy,
    }
    file = folder / "dualpool.yaml"
    file.write_text(yaml.safe_dump(document))
    with ExitStack() as stack:
        command = (sys.executable, "-m", "extproc", "serve", "--config", str(file))
        service = stack.enter_context(started(command))
        stack.enter_context(started(envoy_command(render_envoy(load(file))).argv))
        found = Fronted(
            url=f"http://127.0.0.1:{ports.listener}",
            http=f"http://127.0.0.1:{ports.http}",
            admin=f"http://127.0.0.1:{ports.admin}",
            service=service,
        )
        wait_for(found.is_ready)
        wait_for(lambda: _decides(found, model))
        yield found


def ask(stack, model, text="Where do owls sleep?", **fields):
    """Send a completion; return the answer."""
    body = {"prompt": text, "max_tokens": 5, "model": model} | fields
    return fetch(f"{stack.url}/v1/completions", body)


def _decides(stack, model):
    try:
        return ask(stack, model).headers.get("x-llm-reason") == "fits"
    except OSError:
        return False
