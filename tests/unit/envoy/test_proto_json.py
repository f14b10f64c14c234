"""Scalars, enums and well-known types in JSON, as Envoy reads them."""

from datetime import date

import pytest
from envoy_data_plane.envoy.config.cluster.v3 import ClusterDiscoveryType
from envoy_data_plane.google.protobuf import Duration, Struct, Timestamp

from extproc.envoy.document import Part
from extproc.envoy.proto_json import WrongValue, read_enum, read_json_form, read_scalar

SCALARS = [
    ("bool", True, True),
    ("bool", "false", False),
    ("string", "a", "a"),
    ("string", date(2025, 1, 31), "2025-01-31"),
    ("bytes", "YQ==", b"a"),
    ("double", 1, 1.0),
    ("float", "1e3", 1000.0),
    ("float", "Infinity", float("inf")),
    ("uint32", 7, 7),
    ("int64", "-7", -7),
    ("uint64", "18446744073709551615", 18446744073709551615),
    ("fixed32", 7.0, 7),
]
WRONG = [
    ("bool", 1, "true or false"),
    ("bool", "yes", "true or false"),
    ("string", 1, "text"),
    ("string", None, "text"),
    ("bytes", "?", "bytes in base64"),
    ("bytes", "é", "bytes in base64"),
    ("double", True, "a number"),
    ("double", "half", "a number"),
    ("uint32", True, "a whole number"),
    ("uint32", 1.5, "a whole number"),
    ("uint32", "1.5", "a whole number"),
    ("uint32", float("nan"), "a whole number"),
    ("uint32", [1], "a whole number"),
]


@pytest.mark.parametrize(("kind", "value", "read"), SCALARS)
def test_a_scalar_is_read(kind, value, read):
    assert read_scalar(kind, Part("", value)) == read


@pytest.mark.parametrize(("kind", "value", "expected"), WRONG)
def test_a_value_of_another_type_is_wrong(kind, value, expected):
    with pytest.raises(WrongValue, match=f"^x: expected {expected}.*, found "):
        read_scalar(kind, Part("x", value))


@pytest.mark.parametrize("value", ["STRICT_DNS", "strict_dns", 1])
def test_an_enum_is_known_by_name_and_number(value):
    assert read_enum(ClusterDiscoveryType, Part("", value)) is ClusterDiscoveryType.STRICT_DNS


@pytest.mark.parametrize("value", ["", "other", 99, True, 1.0, None, []])
def test_another_value_of_an_enum_is_wrong(value):
    with pytest.raises(WrongValue, match="unknown value"):
        read_enum(ClusterDiscoveryType, Part("", value))


def test_well_known_types_have_their_own_form():
    assert read_json_form(Duration, Part("", "1.5s")) == Duration(1, 500_000_000)
    assert read_json_form(Timestamp, Part("", "1970-01-01T00:00:07Z")) == Timestamp(7)
    assert read_json_form(Struct, Part("", {"a": None})).to_dict() == {"a": None}


@pytest.mark.parametrize(
    ("kind", "value"), [(Duration, "1"), (Duration, 1), (Timestamp, "noon"), (Struct, [])]
)
def test_another_form_is_wrong(kind, value):
    with pytest.raises(WrongValue, match="expected a"):
        read_json_form(kind, Part("", value))
