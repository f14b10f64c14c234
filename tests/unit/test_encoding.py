"""Decoding a body, cut anywhere, and what is no body of its encoding."""

import gzip
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from extproc.encoding import MAX_FRAMES, PIECE_BYTES, Decoder, EncodingError, require


def bare_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate ": bare_deflate,
    "BR": brotli.compress,
    "zstd": zstandard.compress,
    "identity": bytes,
    "": bytes,
}
CODINGS = ("gzip", "deflate", "br", "zstd")
each_encoding = pytest.mark.parametrize("name", ENCODERS)
each_coding = pytest.mark.parametrize("name", CODINGS)


def encode(name: str, data: bytes) -> bytes:
    return next(encode for key, encode in ENCODERS.items() if key.lower() == name)(data)


def decode(encoding: str, *pieces: bytes) -> bytes:
    decoder = Decoder(encoding)
    return b"".join(b"".join(decoder.feed(piece)) for piece in pieces)


def cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    edges = [0, *sorted(at % (len(data) + 1) for at in cuts), len(data)]
    return (data[first:last] for first, last in pairwise(edges))


@each_encoding
@given(data=st.binary(max_size=300), times=st.integers(1, 999), cuts=st.lists(st.integers(0)))
def test_cuts_do_not_matter(name, data, times, cuts):
    assert decode(name, *cut(ENCODERS[name](data * times), cuts)) == data * times


def test_identity_is_no_coding():
    assert decode("identity, gzip,, identity", gzip.compress(b"hello")) == b"hello"


@pytest.mark.parametrize("encoding", ["compress", "aes128gcm", "gzip;q=1", "*"])
def test_an_unknown_encoding_is_refused(encoding):
    with pytest.raises(EncodingError, match="unknown content encoding"):
        Decoder(encoding)


@pytest.mark.parametrize("encoding", ["gzip, br", "zstd, zstd", "gzip, aes128gcm"])
def test_a_second_coding_is_refused(encoding):
    with pytest.raises(EncodingError, match="2 codings, one is read"):
        Decoder(encoding)


@each_encoding
def test_no_piece_is_longer_than_promised(name):
    pieces = list(Decoder(name).feed(ENCODERS[name](b"\0" * 1_000_000)))
    assert sum(map(len, pieces)) == 1_000_000
    assert max(map(len, pieces)) <= PIECE_BYTES


@each_coding
def test_a_bomb_never_takes_more_memory_than_a_window_and_some_pieces(name):
    bomb, decoder = encode(name, b"\0" * 50_000_000), Decoder(name)
    tracemalloc.start()
    size = sum(map(len, decoder.feed(bomb)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 50_000_000
    assert peak < 4_000_000


def test_nothing_is_decoded_before_it_is_asked_for():
    pieces = Decoder("gzip").feed(gzip.compress(b"\0" * 10 * PIECE_BYTES) + b"corrupt")
    assert next(pieces) == b"\0" * PIECE_BYTES


@each_coding
def test_it_is_complete_when_the_last_byte_has_come(name):
    body, decoder = encode(name, b"hello" * 100), Decoder(name)
    seen = []
    for byte in body:
        seen.append(decoder.complete)
        list(decoder.feed(bytes([byte])))
    assert not any(seen)
    assert decoder.complete


def test_a_body_without_a_coding_is_always_complete():
    assert Decoder("").complete


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_and_frames_follow_one_another(name):
    bodies = [encode(name, text) for text in (b"one ", b"", b"two")]
    assert decode(name, b"".join(bodies)) == b"one two"
    assert decode(name, *bodies) == b"one two"


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_without_end_are_refused(name):
    with pytest.raises(EncodingError, match="more than 1024"):
        decode(name, encode(name, b"") * (MAX_FRAMES + 1))


@each_coding
def test_data_of_another_encoding_is_corrupt(name):
    with pytest.raises(EncodingError):
        decode(name, b'{"model": "m", "messages": []}')


@each_coding
def test_data_after_the_end_is_corrupt(name):
    with pytest.raises(EncodingError):
        decode(name, encode(name, b"hello") + b"and more")


def test_a_zstd_window_over_8_mib_is_refused():
    wide = zstandard.ZstdCompressionParameters(window_log=27)
    body = zstandard.ZstdCompressor(compression_params=wide).compress(b"a" * (16 << 20))
    with pytest.raises(EncodingError, match="too much memory"):
        decode("zstd", body)


@each_coding
@given(data=st.binary(), at=st.integers(0), flip=st.integers(1, 255))
def test_damage_is_an_encoding_error_or_goes_unseen(name, data, at, flip):
    body = bytearray(encode(name, data))
    body[at % len(body)] ^= flip
    with suppress(EncodingError):
        decode(name, bytes(body))


@pytest.mark.parametrize("library", ["brotli", "zstandard"])
def test_a_missing_library_is_noticed_before_it_is_needed(library):
    code = (
        "import importlib.util as util\n"
        "find = util.find_spec\n"
        f"util.find_spec = lambda name: None if name == {library!r} else find(name)\n"
        "import extproc.encoding"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"ModuleNotFoundError: No module named '{library}'" in done.stderr


def test_a_library_that_is_not_there_is_named():
    with pytest.raises(ModuleNotFoundError, match="No module named 'brotlee'") as found:
        require("brotlee")
    assert found.value.name == "brotlee"
