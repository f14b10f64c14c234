"""Memory of a serving process: large buffers are kept, and modules are not searched for garbage.

What the imports have freed is returned.

By default every buffer above 128 KiB may be a mapping of its own, whose pages fault anew. Elsewhere
than with glibc (musl, macOS) this is not changed.
"""

import ctypes
import gc
from contextlib import suppress
from typing import Final

MMAP_BYTES: Final = 32 << 20
"""Larger buffers are mappings of their own; the most that glibc accepts."""
TRIM_BYTES: Final = 64 << 20
"""So much free memory is kept."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_large_buffers() -> bool:
    """Set the thresholds; False where there are none."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, MMAP_BYTES) and mallopt(_M_TRIM_THRESHOLD, TRIM_BYTES))


def spare_modules() -> None:
    """Leave what was imported out of garbage collections, of which a full one stops all streams.

    It would search 67,000 objects for 12 to 30 ms, and all of them stay.
    """
    gc.collect()
    gc.freeze()
    with suppress(AttributeError, OSError):  # elsewhere than with glibc
        ctypes.CDLL(None).malloc_trim(0)
