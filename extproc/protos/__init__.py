"""Envoy's ext_proc messages, generated from protos/ by `make protos`; never edited by hand.

The messages live in a descriptor pool of their own and under this package, so that they neither
shadow nor collide with other builds of Envoy's API (xds-protos registers the same names in the
default pool) in one environment or one process.
"""

from google.protobuf import any_pb2, descriptor_pool, duration_pb2, struct_pb2, wrappers_pb2

POOL = descriptor_pool.DescriptorPool()
for _well_known in (any_pb2, duration_pb2, struct_pb2, wrappers_pb2):
    POOL.AddSerializedFile(_well_known.DESCRIPTOR.serialized_pb)
