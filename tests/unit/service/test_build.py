"""The parts of a serving process, built from the settings."""

import asyncio
import logging
import subprocess
import sys

import hpack
import pytest
from prometheus_client import CollectorRegistry

from extproc.build import build_learner
from extproc.config.settings import (
    EnvoySettings,
    ListenSettings,
    LogLevel,
    PoolSettings,
    Settings,
    StickyBy,
    StickySettings,
    TenantSettings,
    Transport,
)
from extproc.routing.tenant import TenantKey
from extproc.service.bearer import TokenError
from extproc.service.build import (
    build_server,
    build_stages,
    build_tenant_secret,
    choose_transport,
    configure_logging,
    describe_settings,
    message_bytes,
    renew_stages,
)
from extproc.service.certificates import CertificateError
from extproc.service.grpc_server import GrpcServer
from extproc.service.h2_server import H2Server


def built(registry):
    settings = Settings()
    learner = build_learner(settings)
    return build_stages(settings, learner, learner.learn, registry, b"")


def test_the_secret_of_tenants_is_that_of_the_file_or_random(tmp_path):
    file = tmp_path / "key"
    file.write_text("secret\n")
    given = Settings(tenants=TenantSettings(key_file=str(file)))
    assert build_tenant_secret(given) == build_tenant_secret(given)
    assert build_tenant_secret(Settings()) != build_tenant_secret(Settings())
    file.write_text("")
    with pytest.raises(TokenError, match=r"key: holds no secret for tenants\.key_file; write one"):
        build_tenant_secret(given)


def test_tenants_are_told_apart_by_the_header_of_the_settings():
    settings = Settings(tenants=TenantSettings(header="x-tenant"))
    rules = build_stages(settings, build_learner(settings), print, CollectorRegistry(), b"s").rules
    assert rules.tenants == TenantKey("x-tenant", b"s")


def test_the_outcomes_of_streams_are_counted_from_zero():
    registry = CollectorRegistry()
    built(registry)
    for outcome in ("finished", "left", "left_chunked", "protocol", "fault"):
        assert registry.get_sample_value("dualpool_streams_total", {"outcome": outcome}) == 0


def test_the_clock_runs_and_draws_differ():
    stages = built(CollectorRegistry())
    assert stages.clock() <= stages.clock()
    assert 0 <= stages.draw() < 1
    assert stages.draw() != stages.draw()


def test_a_server_needs_its_certificates():
    settings = Settings(listen=ListenSettings(tls_cert="/none", tls_key="/none"))
    with pytest.raises(CertificateError, match="/none: cannot be read"):
        build_server(settings, built(CollectorRegistry()), "127.0.0.1:0")


@pytest.mark.parametrize(
    ("large", "most", "longest"),
    [
        (4 << 20, 64 << 20, (4 << 20) + 1024),
        (0, 64 << 20, 64 << 20),
        (1024, 64 << 20, (1 << 20) + 1024),  # there must be room for headers
        (128 << 20, 64 << 20, 64 << 20),
    ],
)
def test_a_message_is_as_long_as_a_body_that_is_read(large, most, longest):
    settings = Settings(
        listen=ListenSettings(max_message_bytes=most), envoy=EnvoySettings(large_body_bytes=large)
    )
    assert message_bytes(settings) == longest


def test_the_state_shows_estimator_target_and_windows():
    pools = (PoolSettings(name="a", max_model_len=10), PoolSettings(name="b", max_model_len=20))
    settings = Settings(pools=pools)
    assert describe_settings(settings) == {
        "estimator": "calibrated",
        "target": 0.001,
        "shadow": False,
        "pools": {"a": 10, "b": 20},
        "settings": settings.model_dump(),
    }


def test_the_log_level_is_the_settings(monkeypatch):
    root = logging.RootLogger(logging.DEBUG)
    monkeypatch.setattr(logging, "root", root)
    configure_logging(Settings(log_level=LogLevel.WARNING))
    assert root.level == logging.WARNING


def test_headers_are_not_logged_at_any_level(monkeypatch, caplog):
    # The level of all loggers is restored once `logging.root` is.
    with caplog.at_level(logging.DEBUG), monkeypatch.context() as patch:
        patch.setattr(logging, "root", logging.RootLogger(logging.DEBUG))
        patch.setattr(logging.getLogger("hpack"), "level", logging.NOTSET)
        configure_logging(Settings(log_level=LogLevel.DEBUG))
        hpack.Decoder().decode(hpack.Encoder().encode([("authorization", "Bearer secret")]))
    assert "secret" not in caplog.text


def test_grpcio_logs_nothing_at_the_level_debug(monkeypatch, caplog):
    with caplog.at_level(logging.DEBUG), monkeypatch.context() as patch:
        patch.setattr(logging, "root", logging.RootLogger(logging.DEBUG))
        configure_logging(Settings(log_level=LogLevel.DEBUG))
        assert not logging.getLogger("grpc._cython.cygrpc").isEnabledFor(logging.DEBUG)


@pytest.mark.parametrize(
    ("listen", "kind"), [({"transport": "grpc"}, GrpcServer), ({"transport": "h2"}, H2Server)]
)
def test_the_server_is_that_of_the_transport(listen, kind):
    settings = Settings.model_validate({"listen": listen})
    learner = build_learner(settings)
    stages = build_stages(settings, learner, learner.learn, CollectorRegistry(), b"")

    async def build():
        return build_server(settings, stages, "127.0.0.1:0")

    assert isinstance(asyncio.run(build()), kind)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:/run/s", Transport.H2),
        ("127.0.0.1:1", Transport.H2),
        ("localhost:1", Transport.H2),
        ("[::1]:1", Transport.H2),
        ("0.0.0.0:1", Transport.GRPC),
        ("[::]:1", Transport.GRPC),
        ("127.0.0.1.example.com:1", Transport.GRPC),
    ],
)
def test_the_transport_follows_from_the_address(address, expected):
    assert choose_transport(Settings(listen=ListenSettings(grpc=address))) is expected


def test_with_tls_the_transport_is_grpc():
    listen = ListenSettings(grpc="127.0.0.1:1", tls_cert="/c", tls_key="/k")
    assert choose_transport(Settings(listen=listen)) is Transport.GRPC


def test_the_service_on_h2_does_not_load_grpc():
    code = (
        "import sys, extproc.service.serve, extproc.service.worker\n"
        "from extproc.config.settings import Settings\n"
        "from extproc.service.reload import Source\n"
        "from extproc.service.serve import Service\n"
        "Service(Settings(), Source(None, Settings))\n"
        "print('grpc' in sys.modules, 'extproc.service.h2_server' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"


def test_conversations_stay_known_under_other_settings_while_they_are_sticky():
    def sticky(by, most=2):
        return Settings(sticky=StickySettings(by=by, max=most))

    def renewed(before, settings):
        return renew_stages(before, settings, print, b"")

    learner = build_learner(Settings())
    stages = build_stages(sticky(StickyBy.USER), learner, print, CollectorRegistry(), b"")
    for name in ("a", "b"):
        stages.sticky_pools.keep(name, "long")
    stages = renewed(stages, sticky(StickyBy.USER, 1))
    assert [stages.sticky_pools.find([name]) for name in ("a", "b")] == ["", "long"]
    stages = renewed(stages, Settings())
    assert stages.sticky_pools is None
    assert len(renewed(stages, sticky(StickyBy.USER)).sticky_pools) == 0
