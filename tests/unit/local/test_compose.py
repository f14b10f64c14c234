"""A running stack as the demo finds it from outside."""

import asyncio

import aiohttp
import pytest

from extproc.local.children import StackError
from extproc.local.compose import find_stack
from extproc.local.ports import free_ports


def _find(url):
    async def find():
        async with aiohttp.ClientSession() as session:
            return await find_stack(session, url)

    return asyncio.run(find())


def test_a_stack_that_is_not_there_is_named():
    url = f"http://127.0.0.1:{free_ports().listener}"
    with pytest.raises(StackError, match=f"{url}/v1/models lists no model with max_model_len"):
        _find(url)


def test_an_address_that_is_none_names_its_option():
    with pytest.raises(StackError, match="--compose: 'https://h:1' is not http://HOST:PORT"):
        _find("https://h:1")
