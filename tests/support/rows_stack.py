"""The service behind the real Envoy, with rows of pools for several models."""

from contextlib import contextmanager

import pytest

from extproc.local.children import StackError
from extproc.local.envoy import find_envoy
from extproc.local.ports import free_ports
from tests.support.local_stack import fetch
from tests.support.production_stack import serving, wait_for


@contextmanager
def fronted_rows(folder, rows, model, load=None, **envoy):
    """Run Envoy and the service; yield when they decide for requests of the model.

    `rows` and `load` are those of a settings file, `envoy` further settings of its section.
    """
    try:
        find_envoy()
    except StackError as error:
        pytest.skip(str(error))
    ports = free_ports()
    document = {
        "rows": rows,
        "load": load or {},
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
    with serving(folder, document, ports) as found:
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
