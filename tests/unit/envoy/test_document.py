"""Envoy files of any shape, and the lines of their parts."""

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
