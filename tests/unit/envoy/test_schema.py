"""An Envoy file read as messages of Envoy's API: each kind of fault, and files without any."""

import copy
import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.cli import main
from extproc.commands.checking import check
from extproc.config.errors import UserError
from extproc.config.settings import Settings
from extproc.envoy.document import Part, read_envoy
from extproc.envoy.render import render_envoy
from extproc.envoy.schema import check_schema
from extproc.names import install_hint
from tests.support import envoy_gateway, istiod
from tests.support.envoys import FORMS
from tests.support.manifests import FOLDERS, load
from tests.support.paths import DATA, ROOT, SHARED

BROKEN = sorted((DATA / "envoy_files").glob("*.yaml"))
GOOD = sorted((SHARED / "envoy-configs").glob("**/*.yaml"))
CLUSTER = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
TLS = {
    "listen": {"tls_cert": "/a", "tls_key": "/b", "tls_client_ca": "/c"},
    "envoy": {"tls_ca": "/d", "tls_cert": "/e", "tls_key": "/f"},
}
# Types of Envoy 1.40 in our own files that envoy-data-plane 2.2 does not have.
NEW_TYPES = (
    "envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManagerPerRoute",
    "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
    "envoy.extensions.router.cluster_specifiers.priority_group.v3.PriorityGroupClusterSpecifier",
)


def rendered(**changes):
    return yaml.safe_load(render_envoy(Settings.model_validate(changes)))


def cluster(**fields):
    return check_schema(Part("", {"@type": CLUSTER, **fields}))


def faults(document):
    return [str(fault) for fault in check_schema(Part("", document)).faults]


def assert_only_new(report):
    assert report.faults == ()
    for finding in report.unchecked:
        assert finding.path.endswith(".response_handling") or finding.text.endswith(
            tuple(f"{name!r}" for name in NEW_TYPES)
        )


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_each_fault_has_its_line_its_path_and_what_is_wrong(path):
    file = read_envoy(path)
    report = check_schema(file.document)
    lines = [f"{file.line(fault.path)}: {fault}" for fault in report.faults]
    assert lines == path.with_suffix(".txt").read_text().splitlines()
    assert report.unchecked == ()


@pytest.mark.parametrize(("version", "form"), FORMS)
def test_what_is_rendered_has_no_fault(version, form):
    document = rendered(envoy={"version": version, "form": form})
    report = check_schema(Part("", document))
    assert_only_new(report)
    assert bool(report.unchecked) == (version == "1.40")


def test_tls_and_sockets_have_no_fault():
    assert_only_new(check_schema(Part("", rendered(**TLS))))
    assert_only_new(check_schema(Part("", rendered(listen={"grpc": "unix:/run/a.sock"}))))


def test_the_file_of_the_repository_has_no_fault():
    assert_only_new(check_schema(read_envoy(ROOT / "envoy" / "envoy.yaml").document))


@pytest.mark.parametrize("mesh", [istiod, envoy_gateway], ids=["istio", "gateway"])
def test_what_the_control_planes_make_of_our_objects_has_no_fault(mesh):
    folder = {"istiod": "istio", "envoy_gateway": "gateway"}[mesh.__name__.rpartition(".")[2]]
    assert_only_new(check_schema(Part("", mesh.bootstrap(load(FOLDERS / folder), 10000, 9901))))


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
@pytest.mark.skipif(not GOOD, reason="no ../shared/envoy-configs")
def test_files_that_envoy_runs_have_no_fault(path):
    if len(list(yaml.compose_all(path.read_text()))) > 1:
        pytest.skip("objects of Kubernetes")
    assert_only_new(check_schema(read_envoy(path).document))


def test_names_in_camel_case_are_read_too():
    assert cluster(connectTimeout="1s", outlierDetection={"consecutive5xx": 3}).faults == ()


def test_what_is_not_checked_is_one_line(capsys):
    files = ROOT / "envoy" / "dualpool.yaml", ROOT / "envoy" / "envoy.yaml"
    assert main(["check", str(files[0]), "--envoy", str(files[1])]) == 0
    err = capsys.readouterr().err
    *lines, last = [line for line in err.splitlines() if str(files[1]) in line]
    named = r"note: \S+:\d+: not checked: envoy-data-plane [0-9.]+ has no (type|field) '[\w.]+'"
    assert all(re.match(named, line) for line in lines)
    assert last == f"note: Envoy itself checks all: envoy --mode validate -c {files[1]}"


@pytest.fixture
def said(tmp_path, capsys):
    """What the command says of an Envoy file."""

    def run(text):
        file = tmp_path / "envoy.yaml"
        file.write_text(text)
        main(["check", "--envoy", str(file)])
        return capsys.readouterr().err

    return run


def extensions(names):
    rows = (f'- {{typed_config: {{"@type": type.googleapis.com/envoy.{n}.v3.A}}}}' for n in names)
    return "bootstrap_extensions:\n" + "\n".join(rows)


def test_a_type_that_is_not_known_is_told_once(said):
    [line, _] = said(extensions(["a", "a", "a"])).splitlines()
    assert re.search(r"yaml:2: not checked: .* no type 'envoy.a.v3.A' \(and 2 other lines\)", line)


def test_at_most_ten_types_that_are_not_known_are_told(said):
    lines = said(extensions("abcdefghijkl")).splitlines()
    assert len(lines) == 11
    assert "2 more are not checked" in lines[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "is empty"), ("apiVersion: v1", "an object of Kubernetes"), ("pools: []", "settings")],
)
def test_what_is_no_file_of_envoys_is_said(text, told, tmp_path):
    file = tmp_path / "envoy.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=told):
        check(None, file, looks_at_files=False)


@pytest.mark.parametrize("duration", ["1e3s", "99999999999999s", "-1s", "1", "1m", 1])
def test_a_duration_is_seconds(duration):
    assert len(cluster(connect_timeout=duration).faults) == 1


def test_a_type_of_a_newer_envoy_is_not_checked():
    socket = {"typed_config": {"@type": "type.googleapis.com/envoy.extensions.new.v3.New", "a": 1}}
    report = cluster(transport_socket=socket)
    assert report.faults == ()
    assert [finding.path for finding in report.unchecked] == ["transport_socket.typed_config.@type"]


def test_a_field_of_a_newer_envoy_is_not_checked():
    report = cluster(stats_matcher={})
    assert report.faults == ()
    assert [finding.path for finding in report.unchecked] == ["stats_matcher"]


@pytest.mark.parametrize(
    "name", ["..", "os.Path", "", "a" * 10_000, "envoy.config.Ünder", "\ud800"]
)
def test_no_name_of_a_type_is_too_odd(name):
    check_schema(Part("", {"@type": f"x/{name}"}))


def test_an_empty_file_has_no_fault():
    assert faults(None) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
    ),
)
# Several pools repeat the routes of one, and only take longer.
RENDERED = rendered(pools=[{"name": "long", "max_model_len": 8192}])


def places(node):
    children = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in children:
        yield node, key
        if isinstance(value, dict | list):
            yield from places(value)


@given(st.data(), VALUES)
@settings(max_examples=200, deadline=None)
def test_no_change_of_a_file_makes_it_too_odd(data, value):
    document = copy.deepcopy(RENDERED)
    node, key = data.draw(st.sampled_from(list(places(document))))
    node[key] = value
    report = check_schema(Part("", document))
    if report.message is not None:
        bytes(report.message)


def test_check_prints_a_fault_with_its_line(tmp_path, capsys):
    file = tmp_path / "envoy.yaml"
    text = render_envoy(Settings())
    file.write_text(text.replace("virtual_hosts:", "virtual_host:"))
    assert main(["check", "--envoy", str(file)]) == 1
    line = text[: text.index("virtual_hosts:")].count("\n") + 1
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(f"{file}:{line}: static_resources.listeners[0].")
    assert first.endswith("RouteConfiguration; did you mean `virtual_hosts`?")


def test_check_says_how_to_get_the_types(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = tmp_path / "envoy.yaml"
    file.write_text(render_envoy(Settings()))
    assert main(["check", "--envoy", str(file)]) == 0
    told = capsys.readouterr()
    assert told.out == f"{file} and the settings agree\n"
    assert told.err == (f"{file}: fields and types were not checked: {install_hint('commands')}\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pools: []", "a file of settings"),
        ("http_filters: []", "parts that config envoy --fragment"),
    ],
)
def test_a_file_that_is_not_envoys_is_named(tmp_path, capsys, text, told):
    file = tmp_path / "envoy.yaml"
    file.write_text(text)
    assert main(["check", "--envoy", str(file)]) == 2
    assert told in capsys.readouterr().err
