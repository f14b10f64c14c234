"""Run vLLM servers that are forked from one process, which has imported vLLM once.

To import it takes ten seconds of CPU in each of a server's three processes, and most of their
memory. Run this with the Python of vLLM: each line of stdin starts a server, and its process id is
printed. All of them end once stdin does.
"""

import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
from contextlib import suppress

MODULES = (
    "vllm.entrypoints.cli.main",
    "vllm.entrypoints.cli.serve",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2",
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
)
END_S = 30


def import_vllm():
    context = multiprocessing.get_context
    # On a CPU vLLM spawns its engine and its worker. With one thread a fork is as safe.
    multiprocessing.get_context = lambda method=None: context("fork" if method else None)
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that no server's collector writes to the pages that all share


def serve(arguments, environment, log):
    """Become a server."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.update(environment)
    nothing, out = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_APPEND)
    for source, target in ((nothing, 0), (out, 1), (out, 2)):
        os.dup2(source, target)
    sys.argv = ["vllm", "serve", *arguments]
    sys.exit(importlib.import_module(MODULES[0]).main())


def main():
    import_vllm()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they are reaped as they end
    servers = []
    for line in sys.stdin:
        servers.append(os.fork())
        if not servers[-1]:
            serve(*json.loads(line))
        print(servers[-1], flush=True)
    for server in servers:
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)
    signal.alarm(END_S)
    with suppress(ChildProcessError):
        os.wait()


if __name__ == "__main__":
    main()
