"""Whether what every request passes through is compiled (docs/decisions/0019)."""

from extproc.service import places


def is_compiled() -> bool:
    """Return whether Python found extension modules beside the sources."""
    return not str(places.__file__).endswith(".py")


def engine() -> str:
    """Return "compiled" or "interpreted", for a log."""
    return "compiled" if is_compiled() else "interpreted"
