"""The types and fields of Envoy's API by the names that files use."""

import pytest

from extproc.envoy.api_types import api_fields, find_type, full_name, is_newer, nearest_type

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
CLUSTER = "envoy.config.cluster.v3.Cluster"


def test_a_type_is_found_by_its_full_name():
    assert full_name(find_type(CLUSTER)) == CLUSTER


def test_a_nested_type_is_found():
    name = f"{CLUSTER}.CommonLbConfig.ZoneAwareLbConfig"
    assert full_name(find_type(name)) == name


@pytest.mark.parametrize(
    "name", ["", "Cluster", "envoy.config.cluster.v3", "os.Path", f"x.{CLUSTER}", f"{CLUSTER}s"]
)
def test_other_names_are_no_types(name):
    assert find_type(name) is None


def test_a_misspelled_name_has_a_nearest_one():
    assert nearest_type("envoy.config.clusters.v3.Cluster") == CLUSTER


@pytest.mark.parametrize(
    "name",
    [
        "envoy.extensions.filters.http.cache_v3.v3.CacheV3Config",
        "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
        "com.example.Filter",
    ],
)
def test_another_version_or_extension_is_not_a_misspelled_one(name):
    assert nearest_type(name) is None


def test_a_field_has_two_names():
    fields = api_fields(find_type("envoy.config.cluster.v3.OutlierDetection"))
    assert fields["consecutive_5xx"] is fields["consecutive5xx"]


def test_fields_that_only_envoy_has_are_newer():
    kind = find_type(CLUSTER)
    assert is_newer(kind, "stats_matcher")
    assert is_newer(kind, "statsMatcher")
    assert not is_newer(kind, "frobnicate")
