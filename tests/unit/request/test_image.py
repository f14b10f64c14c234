"""Sizes of images, read off real headers and off broken ones."""

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.image import HEAD_CHARS, MAX_SIDE, UNKNOWN, Image, read_image


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + struct.pack(">II", width, height) + b"\x08\x06"


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height)


def webp(chunk: bytes, data: bytes) -> bytes:
    return b"RIFF\x24\0\0\0WEBP" + chunk + struct.pack("<I", len(data)) + data


def webp_lossy(width: int, height: int) -> bytes:
    return webp(b"VP8 ", b"\x30\x01\0\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height))


def webp_lossless(width: int, height: int) -> bytes:
    return webp(b"VP8L", b"\x2f" + (width - 1 | (height - 1) << 14).to_bytes(4, "little"))


def webp_extended(width: int, height: int) -> bytes:
    sides = ((side - 1).to_bytes(3, "little") for side in (width, height))
    return webp(b"VP8X", b"\x10\0\0\0" + b"".join(sides))


def segment(marker: int, data: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def jpeg(
    width: int, height: int, *, before: bytes = segment(0xE0, b"JFIF\0"), frame: int = 0xC2
) -> bytes:
    return b"\xff\xd8" + before + segment(frame, struct.pack(">BHH", 8, height, width) + b"\x03")


def url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


FORMATS = [png, gif, webp_lossy, webp_lossless, webp_extended, jpeg]
each_format = pytest.mark.parametrize("header", FORMATS)


@each_format
@given(width=st.integers(1, 0x3FFF), height=st.integers(1, 0x3FFF))
def test_the_header_tells_the_size(header, width, height):
    assert read_image(url(header(width, height))) == Image(width=width, height=height)


@each_format
def test_every_api_names_the_same_image(header):
    data = header(640, 480)
    source = {"type": "base64", "data": base64.b64encode(data).decode()}
    assert read_image({"url": url(data)}) == read_image(source) == read_image(url(data))


def test_a_jpeg_may_begin_with_other_segments():
    before = segment(0xE1, b"x" * 40_000) + segment(0xC4, b"tables") + b"\xff\xff\xff"
    assert read_image(url(jpeg(640, 480, before=before))) == Image(width=640, height=480)


def test_a_jpeg_whose_size_comes_too_late_is_unknown():
    before = segment(0xE2, b"x" * (HEAD_CHARS - 100))
    assert read_image(url(jpeg(640, 480, before=before))) == UNKNOWN


@pytest.mark.parametrize(
    "data",
    [jpeg(0, 480), png(640, 0), png(70_000, 480), b"", b"BM" + b"\0" * 40, png(640, 480)[:19]],
)
def test_a_size_that_is_none_is_unknown(data):
    assert read_image(url(data)) == UNKNOWN


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff",
        b"\xff\xd8\xff" + b"\xff" * 1000,
        b"\xff\xd8" + segment(0xE0, b"JFIF") + b"\0" * 40,
        webp(b"VP8 ", b"\0" * 20),
        webp(b"VP8L", b"\0" * 20),
        webp(b"ALPH", b"\0" * 20),
    ],
)
def test_a_broken_header_is_unknown(data):
    assert read_image(url(data)) == UNKNOWN


@pytest.mark.parametrize(
    "source",
    [
        "https://example.com/cat.png",
        "data:image/svg+xml,<svg/>",
        "data:image/png;base64",
        "data:image/png;base64,\N{SNOWMAN}\N{SNOWMAN}\N{SNOWMAN}\N{SNOWMAN}",
        "data:image/png;base64,AAAAA=AA",
        "data:" + "x" * 1000 + ";base64,AAAA",
        "x" + url(png(640, 480)),
        url(png(640, 480)).replace("base64,", "base65,"),
        url(png(640, 480).replace(b"IHDR", b"CgBI")),
        url(png(640, 480).replace(b"PNG", b"MNG")),
        url(webp_extended(640, 480).replace(b"WEBP", b"WAVE")),
        url(webp_extended(640, 480).replace(b"RIFF", b"RIFX")),
        {"url": None},
        {"type": "file", "file_id": "file-1"},
        None,
        5,
    ],
)
def test_what_is_no_image_is_unknown(source):
    assert read_image(source) == UNKNOWN


def test_lines_of_base64_are_one_image():
    lines = base64.encodebytes(jpeg(640, 480, before=segment(0xE1, b"x" * 999))).decode()
    assert read_image({"data": lines}) == Image(width=640, height=480)


@given(st.sampled_from(FORMATS), st.binary(), st.integers(0, 40))
def test_no_bytes_break_it(header, noise, kept):
    image = read_image(url(header(640, 480)[:kept] + noise))
    assert (image.width > 0) == (image.height > 0)


@given(st.text())
def test_no_text_breaks_it(text):
    assert read_image(f"data:image/png;base64,{text}").width >= 0


@pytest.mark.parametrize(("frame", "known"), [(0xC0, True), (0xCF, True), (0xBF, False)])
def test_a_frame_header_is_any_from_sof0_to_sof15(frame, known):
    assert (read_image(url(jpeg(640, 480, frame=frame))) != UNKNOWN) == known


@pytest.mark.parametrize("size", [(MAX_SIDE, 1), (1, MAX_SIDE), (1, 1)])
def test_a_side_may_be_as_long_as_the_bound(size):
    assert read_image(url(png(*size))) == Image(width=size[0], height=size[1])
    assert read_image(url(png(*(side + MAX_SIDE for side in size)))) == UNKNOWN
