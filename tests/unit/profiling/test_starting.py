"""What the comparison needs of a folder with vLLM."""

import asyncio
import socket
import sys
from pathlib import Path

import aiohttp
import pytest

from extproc.local.children import StackError
from extproc.profiling import starting
from extproc.profiling.starting import start_pools


def start(folder: Path | None) -> None:
    async def enter() -> None:
        async with start_pools(folder):
            raise AssertionError("started")

    asyncio.run(enter())


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_a_folder_without_vllm_is_named_with_what_to_set(folder):
    with pytest.raises(StackError, match=r"no venv/bin/vllm; set DUALPOOL_VLLM"):
        start(folder)


# A vLLM that answers /health with 200, at the port that it is told, and ignores all else.
SERVER = """#!{python}
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *arguments):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
open(sys.argv[0] + "-" + sys.argv[sys.argv.index("--max-model-len") + 1], "w").write(
    " ".join(sys.argv[1:])
)
http.server.HTTPServer(("127.0.0.1", port), Health).serve_forever()
"""
BROKEN = """#!{python}
import sys
sys.exit("no such model")
"""


def install(folder: Path, script: str) -> Path:
    """Install a script in place of vLLM."""
    file = folder / "venv/bin/vllm"
    file.parent.mkdir(parents=True)
    file.write_text(script.format(python=sys.executable))
    file.chmod(0o755)
    return file


def test_both_servers_run_until_the_end(tmp_path):
    install(tmp_path, SERVER)

    async def visit() -> tuple[str, str]:
        async with start_pools(tmp_path) as urls, aiohttp.ClientSession() as session:
            for url in urls:
                async with session.get(f"{url}/health") as response:
                    assert response.status == 200
        return urls

    short, long = asyncio.run(visit())
    assert short != long
    for url in (short, long):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) != 0


def test_the_servers_differ_in_window_and_slots_and_preempt(tmp_path):
    file = install(tmp_path, SERVER)

    async def visit() -> None:
        async with start_pools(tmp_path):
            pass

    asyncio.run(visit())
    for window, slots in ((512, 32), (2048, 16)):
        flags = file.with_name(f"vllm-{window}").read_text()
        assert flags.startswith(f"serve {tmp_path}/models/tiny-qwen ")
        assert f"--max-num-seqs {slots} " in flags
        assert "--num-gpu-blocks-override 97 " in flags
        assert "--no-enable-prefix-caching" in flags


def test_a_server_that_ends_says_its_last_words(tmp_path):
    install(tmp_path, BROKEN)
    with pytest.raises(StackError, match=r"vLLM 512 ended with exit status 1\.\n +no such model"):
        start(tmp_path)


def test_a_server_that_never_answers_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(starting, "_START_S", 1)
    install(tmp_path, "#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(StackError, match="vLLM 512 did not become ready"):
        start(tmp_path)
