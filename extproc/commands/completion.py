"""`dualpool completion`: the script by which a shell completes the command line."""

import argparse

DESCRIPTION = (
    "Print a completion script. bash: dualpool completion bash > "
    "~/.local/share/bash-completion/completions/dualpool; zsh: dualpool completion zsh > "
    "_dualpool in a folder of $fpath."
)


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell that reads the script")


def run(options: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    import shtab

    print(shtab.complete(options.whole_parser(), options.shell))
    return 0
