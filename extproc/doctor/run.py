"""`dualpool doctor`: look, conclude, print."""

import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from extproc.config.errors import UserError
from extproc.config.load import load
from extproc.config.settings import Settings
from extproc.doctor.checks import conclude
from extproc.doctor.finding import Ailment, Conclusion
from extproc.doctor.looking import Places, look
from extproc.service.bearer import read_secret


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
    settings = load(options.config)
    if options.config is None:
        # Nothing is known of its addresses, so none is compared.
        listen = settings.listen.model_copy(update={"grpc": "127.0.0.1:0"})
        settings = settings.model_copy(update={"listen": listen})
    places = _places(settings, options)
    concluded = conclude(asyncio.run(look(settings, places)))
    sys.stdout.write(written(concluded, places, as_json=options.json) + "\n")
    return 1 if any(isinstance(each, Ailment) for each in concluded) else 0


def _places(settings: Settings, options: DoctorOptions) -> Places:
    token = options.token_file or Path(settings.listen.http_token_file or "")
    return Places(
        service=_url("--service", options.service or settings.listen.http),
        envoy=_url("--envoy", options.envoy or settings.envoy.admin),
        token=read_secret(token, "token").decode("latin-1") if token != Path() else "",
        watch_s=options.watch_s,
    )


def _url(option: str, text: str) -> str:
    address = text.removeprefix("http://").rstrip("/").replace("0.0.0.0:", "127.0.0.1:")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16 or "/" in host:
        raise UserError(
            f"dualpool: {option}: {text[:200]!r} is not HOST:PORT, such as 10.0.0.5:9901"
        )
    return f"http://{address}"


def written(concluded: tuple[Conclusion, ...], places: Places, *, as_json: bool) -> str:
    """Return one line for each finding, and what was looked at; or all of it as JSON."""
    ailments = [each for each in concluded if isinstance(each, Ailment)]
    unchecked = [each for each in concluded if not isinstance(each, Ailment)]
    if as_json:
        rows = {"findings": map(asdict, ailments), "unchecked": map(asdict, unchecked)}
        looked: dict[str, object] = {"envoy": places.envoy, "service": places.service}
        return json.dumps(looked | {key: [*each] for key, each in rows.items()}, indent=2)
    well = "nothing is wrong in what was checked" if unchecked else "nothing is wrong"
    count = f"findings: {len(ailments)}" if ailments else well
    last = f"looked at Envoy ({places.envoy}) and the service ({places.service}): {count}"
    return "\n".join(map(str, (*ailments, *unchecked, last)))
