"""Envoy's ext_proc messages, generated from protos/ by `make protos`; never edited by hand.

The messages live in a descriptor pool of their own and under this package, so that they neither
shadow nor collide with other builds of Envoy's API (xds-protos registers the same names in the
default pool) in one environment or one process.
"""

from google.protobuf import any_pb2, descriptor_pool, duration_pb2, struct_pb2, wrappers_pb2

WELL_KNOWN = (any_pb2, duration_pb2, struct_pb2, wrappers_pb2)
"""The modules of Google's own files that Envoy's import."""

POOL = descriptor_pool.DescriptorPool()
for _module in WELL_KNOWN:
    POOL.AddSerializedFile(_module.DESCRIPTOR.serialized_pb)
