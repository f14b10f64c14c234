"""Envoy files of any shape, and the lines of their parts."""

import re

import pytest

from extproc.envoy.document import EnvoyFileError, Part, read_envoy

TEXT = """\
node: {id: a}
static_resources:
  clusters:
    - name: short
      "a.b": [1, 2]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text(TEXT)
    return read_envoy(path)


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("node.id", 1),
        ("static_resources.clusters[0].name", 4),
        ("static_resources.clusters[0]['a.b'][1]", 5),
        ("static_resources.clusters[0].load_assignment.endpoints[3]", 4),
        ("static_resources.listeners", 2),
        ("admin", None),
        ("", None),
    ],
)
def test_a_path_has_the_line_of_its_nearest_part(file, path, line):
    assert file.line(path) == line


def test_a_part_knows_its_path(file):
    [cluster] = file.document.at("static_resources", "clusters").items()
    assert cluster.at("a.b").items()[1] == Part("static_resources.clusters[0]['a.b'][1]", 2)


def test_a_file_that_is_too_large_is_refused(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_bytes(b"#" * ((4 << 20) + 1))
    with pytest.raises(EnvoyFileError, match="larger than 4194304 bytes"):
        read_envoy(path)


def test_an_empty_file_is_an_empty_document(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text("")
    assert not read_envoy(path).document.present


def test_json_is_read_too(tmp_path):
    path = tmp_path / "envoy.json"
    path.write_text('{"node": {"id": "a"}}')
    assert read_envoy(path).document.at("node", "id").text == "a"


def test_a_key_that_is_there_twice_is_found_with_both_lines(tmp_path):
    path = tmp_path / "envoy.yaml"
    path.write_text("admin: {}\nnode: {id: a}\nadmin: {address: {}}\n")
    file = read_envoy(path)
    [found] = file.repeated
    assert str(found) == "admin: set before, in line 1, which has no effect: keep one"
    assert file.line(found.path) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\n---\nb: 2\n", ":2: another document begins here"),
        ("a: 1\nb: *c\n", ":2: is not YAML: found undefined alias 'c'; indent with spaces"),
        ("a:\n\tb: 1\n", ":2: is not YAML: found character '\\t'"),
    ],
)
def test_what_yaml_cannot_be_read_has_its_line(tmp_path, text, told):
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    with pytest.raises(EnvoyFileError, match=re.escape(told)):
        read_envoy(path)
