"""What `dualpool check` does: validate the settings, and an Envoy file against them."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice
from pathlib import Path
from typing import Final

from extproc.budget.steering import FLOOR
from extproc.config.addresses import is_of_this_machine
from extproc.config.errors import UserError
from extproc.config.load import ConfigError, load, refused, render
from extproc.config.settings import ANY_MODEL, EstimatorName, Settings, StatedLimits
from extproc.envoy.document import EnvoyFile, Finding, read_envoy
from extproc.envoy.review import remarks, review
from extproc.names import install_hint
from extproc.routing.rows import Row
from extproc.service.files import file_faults, state_path
from extproc.service.state_file import folder_fault

_MOST_NOTES: Final = 10
# Keys that Envoy's bootstrap does not have, and the files that do.
_NOT_ENVOYS: Final = {
    "pools": "a file of settings; name Envoy's with --envoy, and the settings before it",
    "apiVersion": "an object of Kubernetes; name the bootstrap or resource that Envoy gets",
    "http_filters": "the parts that config envoy --fragment prints: paste them into yours first",
}
_WILDCARD: Final = re.compile(r"[*?\[\]]")  # of the entries of `models`
_LEAST_SURE_TARGET: Final = FLOOR / 4  # where no more than a quarter of requests are near


def check(file: Path | None, envoy: Path | None, *, looks_at_files: bool) -> int:
    """Print what is found; return the exit code. Raises ConfigError."""
    settings = load(file)
    if looks_at_files and (faults := list(file_faults(settings))):
        hint = "--no-files leaves out what only the service's machine has"
        raise ConfigError(f"{refused(file, faults)}\n{hint}")
    if envoy is None:
        print(render(settings), end="")
    for note in chain(_notes(settings), _file_notes(settings) if looks_at_files else ()):
        print(f"note: {note}", file=sys.stderr)
    return 0 if envoy is None else _check_envoy(envoy, settings)


def _notes(settings: Settings) -> Iterator[str]:
    """Yield what is valid and may not do what its operator expects."""
    budget, listen = settings.budget, settings.listen
    if not is_of_this_machine(listen.grpc) and not listen.tls_cert:
        yield (
            f"listen.grpc: {listen.grpc} takes streams of other machines without TLS: set "
            "tls_cert, tls_key and tls_client_ca, or listen on 127.0.0.1 or a Unix socket"
        )
    if budget.estimator is EstimatorName.PAPER and budget.stated_limits is StatedLimits.HINT:
        yield "budget.stated_limits: hint has no effect with estimator paper, which reserves"
    if budget.estimator is EstimatorName.CALIBRATED and budget.target < _LEAST_SURE_TARGET:
        yield (
            f"budget.target: {budget.target} holds only if few requests that state no output limit "
            f"are near a pool's window: no risk below {FLOOR} is told apart. "
            f"{_LEAST_SURE_TARGET} or more holds for usual traffic"
        )
    yield from _unused_models(settings)
    pools = dict[str, str]()
    for pool in settings.pools:
        for address in pool.addresses:
            if (other := pools.setdefault(address, pool.name)) != pool.name:
                yield f"pools.{pool.name}.address: {address} is a server of pool {other} too"


def _unused_models(settings: Settings) -> Iterator[str]:
    """Yield the entries of `models` that match no model of a row, or none that is left."""
    names = [name for row in settings.fleet for name in row.models]
    for number, entry in enumerate(settings.models):
        earlier = (each.name for each in settings.models[:number])
        if first := next((name for name in earlier if _hides(name, entry.name)), ""):
            yield (
                f"models: {entry.name!r} stands behind {first!r}, which matches all of its models, "
                "so the entry has no effect: move it before that one, or remove it"
            )
        elif not any(_may_match(entry.name, name) for name in names):
            yield (
                f"models: no row has a model that {entry.name!r} matches, so the entry has no "
                "effect: correct its name, or list the model in its row"
            )


def _hides(earlier: str, later: str) -> bool:
    """Return whether an entry of `models` matches all that a later one does; False if unsure."""
    if earlier == later:
        return True
    # A `*` alone also takes the signs of another pattern, and whatever these stand for.
    is_sure = not _WILDCARD.search(later) or not {*earlier} & {*"?[]"}
    return is_sure and fnmatchcase(later, earlier)


def _may_match(entry: str, name: str) -> bool:
    """Return whether an entry of `models` may match a row's name; of two patterns, if unsure."""
    if ANY_MODEL not in name:
        return fnmatchcase(name, entry)
    parts = _WILDCARD.split(entry)
    if len(parts) == 1:
        return Row.of((name,), ()).has(entry)
    # Anything may be between their ends.
    first, _, last = name.partition(ANY_MODEL)
    begins = parts[0].startswith(first) or first.startswith(parts[0])
    return begins and (parts[-1].endswith(last) or last.endswith(parts[-1]))


def _file_notes(settings: Settings) -> Iterator[str]:
    """Yield what of the service's own files does not end it, but costs what it learns."""
    path = state_path(settings)
    if path and (fault := folder_fault(path)):
        yield f"state: {fault}"


def _check_envoy(path: Path, settings: Settings) -> int:
    file = read_envoy(path)
    for key, told in _NOT_ENVOYS.items():
        if file.document.at(key).value is not None:
            raise UserError(f"{path}: {told}")
    if not file.document.present:
        raise UserError(f"{path}: is empty")
    # What is no such file comes first: the rest may follow from that.
    parts = (file.repeated, _schema_faults(path, file), review(settings, file.document))
    findings = [
        finding
        for part in parts
        for finding in sorted(part, key=lambda each: file.line(each.path) or 0)
    ]
    for finding in findings:
        print(_located(path, file, finding))
    for remark in remarks(settings, file.document):
        # To standard error and without effect on the exit code, as all that is no fault.
        print(f"note: {_located(path, file, remark)}", file=sys.stderr)
    if not findings:
        print(f"{path} and the settings agree")
    return 1 if findings else 0


def _schema_faults(path: Path, file: EnvoyFile) -> tuple[Finding, ...]:
    if importlib.util.find_spec("envoy_data_plane") is None:
        note = f"fields and types were not checked: {install_hint('commands')}"
        print(f"{path}: {note}", file=sys.stderr)
        return ()
    # Half a second to import, and absent from the service's image.
    from extproc.envoy.schema import check_schema

    report = check_schema(file.document)
    # To standard error and without effect on the exit code: what is not checked is no fault.
    for note in _unchecked(path, file, report.unchecked):
        print(f"note: {note}", file=sys.stderr)
    return report.faults


def _unchecked(path: Path, file: EnvoyFile, findings: Sequence[Finding]) -> Iterator[str]:
    """Yield one line for each reason, with the first of its lines."""
    reasons = dict.fromkeys(finding.text for finding in findings)
    for text in islice(reasons, _MOST_NOTES):
        lines = sorted({file.line(each.path) or 1 for each in findings if each.text == text})
        more = f" (and {len(lines) - 1} other lines)" if len(lines) > 1 else ""
        yield f"{path}:{lines[0]}: {text}{more}"
    if reasons:
        rest = max(0, len(reasons) - _MOST_NOTES)
        more = f"{rest} more are not checked; " if rest else ""
        yield f"{more}Envoy itself checks all: envoy --mode validate -c {path}"


def _located(path: Path, file: EnvoyFile, finding: Finding) -> str:
    line = file.line(finding.path)
    return f"{path}: {finding}" if line is None else f"{path}:{line}: {finding}"
