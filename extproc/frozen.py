"""The base of values that are made for each request."""

import msgspec


class Frozen(msgspec.Struct, frozen=True, gc=False):
    """A value that is not changed, and not searched for cycles.

    In a module that may be compiled, a Struct gets its options from a base in one that is not:
    mypyc ignores the arguments of a class.
    """
