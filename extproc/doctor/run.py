"""`dualpool doctor`: look, conclude, print."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from extproc.config.errors import UserError, hide_users
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.doctor.checks import conclude
from extproc.doctor.facts import Unseen
from extproc.doctor.finding import Ailment, Conclusion
from extproc.doctor.looking import Places, ask_settings, look
from extproc.service.bearer import read_secret
from extproc.service.repeating import beside

_MOST_CHARS: Final = 4096  # of a line
_QUIET_S: Final = 2.0  # after which a terminal is told what is waited for


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """Options of the command; an empty address is that of the settings."""

    config: Path | None = None
    envoy: str = ""
    service: str = ""
    token_file: Path | None = None
    watch_s: float = 0
    json: bool = False


def run_doctor(options: DoctorOptions) -> int:
    """Print what is found; return 0 if nothing is wrong, else 1. Raises UserError."""
    concluded, places = asyncio.run(_shown(options))
    sys.stdout.write(written(concluded, places, as_json=options.json) + "\n")
    return 1 if any(isinstance(each, Ailment) for each in concluded) else 0


async def _shown(options: DoctorOptions) -> tuple[tuple[Conclusion, ...], Places]:
    if not sys.stderr.isatty():
        return await _diagnose(options)
    async with beside(_say_what_is_waited_for(options.watch_s)):
        return await _diagnose(options)


async def _say_what_is_waited_for(watch_s: float) -> None:
    await asyncio.sleep(_QUIET_S)
    watching = f", and watching the traffic for {watch_s:g} s" if watch_s else ""
    text = "asking the service, Envoy and the pools, up to 10 s for each answer"
    sys.stderr.write(f"dualpool: {text}{watching} ...\n")
    sys.stderr.flush()


async def _diagnose(options: DoctorOptions) -> tuple[tuple[Conclusion, ...], Places]:
    file = load(options.config) if options.config else None
    known = file or _unknown()
    envoy = _url("--envoy", options.envoy) if options.envoy else ""
    service = _url("--service", options.service or known.listen.http)
    token = _token(options.token_file, known)
    stated = await ask_settings(service, token)
    settings = stated if isinstance(stated, Settings) else known
    envoy = envoy or _url("--envoy", settings.envoy.admin)
    places = Places(service=service, envoy=envoy, token=token, watch_s=options.watch_s)
    unstated = stated.reason if isinstance(stated, Unseen) else ""
    facts = replace(await look(settings, places), unstated=unstated, file=file)
    return conclude(facts), places


def _unknown() -> Settings:
    """Return the defaults without the address of gRPC, so that none is compared."""
    defaults = Settings()
    listen = defaults.listen.model_copy(update={"grpc": "127.0.0.1:0"})
    return defaults.model_copy(update={"listen": listen})


def _token(file: Path | None, settings: Settings) -> str:
    path = file or Path(settings.listen.http_token_file or "")
    return read_secret(path, "token").decode("latin-1") if path != Path() else ""


def _url(option: str, text: str) -> str:
    address = text.removeprefix("http://").rstrip("/").replace("0.0.0.0:", "127.0.0.1:")
    host, _, port = address.rpartition(":")
    is_open = ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host or is_open:
        raise UserError(
            f"dualpool: {option}: {text[:200]!r} is not HOST:PORT, such as 10.0.0.5:9901"
        )
    return f"http://{address}"


def written(concluded: tuple[Conclusion, ...], places: Places, *, as_json: bool) -> str:
    """Return one line for each finding, and what was looked at; or all of it as JSON."""
    return hide_users(_written(concluded, places, as_json=as_json))


def _written(concluded: tuple[Conclusion, ...], places: Places, *, as_json: bool) -> str:
    ailments = [each for each in concluded if isinstance(each, Ailment)]
    unchecked = [each for each in concluded if not isinstance(each, Ailment)]
    if as_json:
        rows = {"findings": map(asdict, ailments), "unchecked": map(asdict, unchecked)}
        looked: dict[str, object] = {"envoy": places.envoy, "service": places.service}
        return json.dumps(looked | {key: [*each] for key, each in rows.items()}, indent=2)
    well = "nothing is wrong in what was checked" if unchecked else "nothing is wrong"
    count = f"findings: {len(ailments)}" if ailments else well
    last = f"looked at Envoy ({places.envoy}) and the service ({places.service}): {count}"
    return "\n".join(map(_line, (*ailments, *unchecked, last)))


def _line(concluded: object) -> str:
    # Names come from servers: they must neither move the cursor nor forge another line.
    text = str(concluded)[:_MOST_CHARS]
    return "".join(char if char.isprintable() else "?" for char in text)
