"""The example of docs/join-your-envoy.md: an operator's Envoy, with our parts pasted.

`python -m tests.support.joined_envoy` writes docs/examples/join/after.yaml anew.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.envoy.fragment import render_fragment
from extproc.local.envoy import envoy_command, find_envoy
from extproc.local.stack import service_settings
from tests.support.local_stack import OwnEnvoy
from tests.support.paths import ROOT

FOLDER = ROOT / "docs" / "examples" / "join"
BEFORE = FOLDER / "before.yaml"
AFTER = FOLDER / "after.yaml"
PREFIX = "/llm/"

# A line of the operator's file, whether the part goes before or after it, and the part's indent.
_PLACES = {
    "early_header_mutation_extensions": (r"( +)http_filters:\n", ""),
    "http_filters": (r"( +)- name: envoy\.filters\.http\.router\n", "items"),
    "routes": (r"( +)- match: \{prefix: /shop/\}\n", "items"),
    "clusters": (r"( +)- name: shop\n", "items"),
}


def join(before: str, fragment: str) -> str:
    """Paste the parts of a fragment into the text of an operator's file."""
    text = before
    for key, (line, kind) in _PLACES.items():
        [part] = re.findall(rf"^{key}:\n(?:(?![a-z#]).*\n?)+", fragment, re.MULTILINE)
        pasted = part.removeprefix(f"{key}:\n") if kind == "items" else part
        found = re.search(line, text)
        indented = re.sub(r"^(?=.)", found[1], pasted.strip("\n") + "\n", flags=re.MULTILINE)
        text = text[: found.start()] + indented + text[found.start() :]
    return text


def joined() -> str:
    """Return the example after the paste."""
    fragment = render_fragment(load(ROOT / "envoy" / "dualpool.yaml"), PREFIX)
    text = join(BEFORE.read_text(), fragment)
    return text.replace("before Dualpool joins it", "after Dualpool has joined it", 1)


@dataclass(frozen=True)
class JoinedEnvoy(OwnEnvoy):
    """The operator's Envoy, joined to the stack of a test; `application` is a port."""

    application: int = 0

    def command(self, ports, pools, settings):
        given = service_settings(ports, pools, [pool.upstream for pool in pools], settings)
        given["envoy"] |= self.settings
        fragment = render_fragment(Settings.model_validate(given), PREFIX)
        document = yaml.safe_load(join(self._before(ports), fragment))
        command = envoy_command(yaml.safe_dump(self.change(document)))
        return replace(command, argv=(self.binary or str(find_envoy()), *command.argv[1:]))

    def _before(self, ports):
        text = BEFORE.read_text().replace("port_value: 9901", f"port_value: {ports.admin}")
        text = text.replace(
            "address: 0.0.0.0, port_value: 8080",
            f"address: 127.0.0.1, port_value: {ports.listener}",
        )
        for name in ("shop", "web"):
            text = text.replace(
                f"address: {name}, port_value: 8080",
                f"address: 127.0.0.1, port_value: {self.application}",
            )
        return text


if __name__ == "__main__":
    Path(AFTER).write_text(joined())
