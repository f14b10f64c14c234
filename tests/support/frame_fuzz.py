"""Sends random frames to our own framing and checks what must always hold.

`python -m tests.support.frame_fuzz --frames 3000000` prints what came of them.
"""

import argparse
import random
import resource
import time
from collections import Counter

from extproc.transport import frames
from extproc.transport.calls import OK, Limits, Status
from extproc.transport.connection import FramedConnection
from extproc.transport.frames import frame, window_update
from extproc.transport.outgoing import DEFAULT_WINDOW
from tests.support.h2_dialogue import (
    START,
    block,
    data,
    headers,
    held_bytes,
    message,
    parsed,
    rst,
    setting,
)

LIMITS = Limits(streams=8, message_bytes=20_000)
FRAMES = 200  # of a connection, at most
_ODD = (0, 1, 2, 2**31 - 1)  # numbers that are seldom allowed
_SELDOM = 0.003
_TRAILERS = block([("a", "b")])
_REQUEST = headers()[9:]
_FLAGS = (0, 0, 0, 1, 4, 5, 8, 9, 32, 36, 45, 255)


class Echo:
    """A call that echoes each message; some end it."""

    def __init__(self):
        self.status = None
        self.closed = False

    def receive(self, content):
        assert not self.closed, "a message after the end"
        if content[:1] == b"b":
            self.status = OK if content[1:2] == b"y" else Status(13, "a fault")
        content = bytes(content)
        return (content, content) if len(content) % 2 else ()

    def close(self):
        self.closed = True


class Peer:
    """A connection, and what it may send by the rules, from above."""

    def __init__(self):
        self.calls = []
        self.next = 1  # the number of the next stream
        self.connection = FramedConnection(self._open, LIMITS)
        self.ended = set()  # streams on which nothing may follow
        self.room = Counter({0: DEFAULT_WINDOW})  # what WINDOW_UPDATE has allowed
        self.first_room = DEFAULT_WINDOW  # the largest window of a new stream so far
        self.used = Counter()
        self.check(self.connection.receive(START))

    def _open(self, path, _):
        if path != "/echo":
            return Status(12, "no such method")
        self.calls.append(Echo())
        return self.calls[-1]

    def check(self, sent):
        """Check what the connection sends, and what it holds."""
        said = parsed(sent)
        for each in said:
            self._check_frame(each)
        connection = self.connection
        streams = connection._streams.values()
        assert connection.held_bytes == held_bytes(streams)
        assert len(streams) <= LIMITS.streams
        if connection.closed:
            assert all(call.closed for call in self.calls)
            assert said[-1].kind == frames.GOAWAY

    def _check_frame(self, each):
        if each.kind in (frames.DATA, frames.HEADERS):
            assert each.stream not in self.ended, "a frame after the end"
            assert len(each.payload) <= frames.MAX_FRAME
        if each.kind == frames.DATA:
            self.used[0] += len(each.payload)
            self.used[each.stream] += len(each.payload)
            assert self.used[0] <= self.room[0]
            assert self.used[each.stream] <= self.room[each.stream] + self.first_room
        ends = each.kind in (frames.DATA, frames.HEADERS) and each.flags & frames.END_STREAM
        if ends or each.kind == frames.RST_STREAM:
            self.ended.add(each.stream)


def _payload(draw):
    kind = draw.randrange(6)
    if kind == 0:
        return draw.randbytes(draw.randrange(20))
    if kind == 1:
        return draw.choice((message(b"bye"), message(b"bad"), bytes(8), bytes(4), bytes(5)))
    if kind == 2:
        return message(b"m" * draw.randrange(20_100))[: draw.choice((3, 100, 16_384))]
    return message(b"m" * draw.randrange(400)) * draw.randrange(1, 4)


def _random(draw, number, _):
    kind, flags = draw.randrange(12), draw.choice(_FLAGS)
    return frame(kind, _payload(draw)[:16_384], flags=flags, stream=number)


def _begin(draw, number, peer):
    if draw.random() > _SELDOM:
        number, peer.next = peer.next, peer.next + 2
    damaged = bytearray(_REQUEST)
    if draw.random() < 0.02:
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
    return headers(number, data=bytes(damaged), end=draw.random() < 0.1)


def _number(draw, peer):
    """Return the number of a stream that was opened not long ago, or seldom another."""
    if draw.random() < _SELDOM or peer.next == 1:
        return draw.choice(_ODD)
    return max(1, peer.next - 2 * draw.randrange(1, 12))


def _update(draw, number, peer):
    if draw.random() < 0.4:
        number = 0
    more = draw.choice((1, 100, 10_000, 100_000))
    if draw.random() < _SELDOM:
        more = draw.randrange(1 << 31)
    peer.room[number] += more
    return window_update(number, more)


def _window(draw, _, peer):
    size = draw.choice((0, 1, 100, 65_535, 1 << 20))
    peer.first_room = max(peer.first_room, size)
    return setting(frames.INITIAL_WINDOW_SIZE, size)


_MAKERS = {
    "HEADERS": (25, _begin),
    "DATA": (40, lambda draw, n, _: data(_payload(draw)[:16_384], n, end=draw.random() < 0.1)),
    "padded DATA": (5, lambda draw, n, _: data(b"\x05" + _payload(draw)[:900], n, flags=8)),
    "trailers": (3, lambda draw, n, _: headers(n, data=_TRAILERS, end=draw.random() < 0.9)),
    "RST_STREAM": (5, lambda draw, n, _: rst(n)),
    "WINDOW_UPDATE": (10, _update),
    "a window": (3, _window),
    "PING": (2, lambda draw, n, _: frame(frames.PING, bytes(8), flags=draw.randrange(2))),
    "any frame": (0.1, _random),
}


def fuzz(count, seed):
    """Send `count` random frames; return how many of each kind, and why connections ended."""
    draw = random.Random(seed)
    kinds, weights = list(_MAKERS), [weight for weight, _ in _MAKERS.values()]
    sent, ends = Counter(), Counter()
    while sent.total() < count:
        peer = Peer()
        _send(draw, peer, _begin(draw, 1, peer))
        for kind in draw.choices(kinds, weights, k=draw.randrange(1, FRAMES)):
            _send(draw, peer, _MAKERS[kind][1](draw, _number(draw, peer), peer))
            sent[kind] += 1
            if peer.connection.closed:
                break
        ends[peer.connection.fault or "the peer left"] += 1
        peer.connection.lose()
        assert peer.connection.held_bytes == 0
        assert all(call.closed for call in peer.calls)
    return sent, ends


def _send(draw, peer, given):
    action = draw.randrange(200)
    if action == 0:
        peer.check(peer.connection.shed())
    elif action == 1:
        peer.connection.tick()
    cut = draw.randrange(len(given)) if draw.random() < 0.2 else 0
    for piece in (given[:cut], given[cut:]):
        if piece and not peer.connection.closed:
            peer.check(peer.connection.receive(piece))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    sent, ends = fuzz(options.frames, options.seed)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{sent.total():,} frames on {ends.total():,} connections in"
          f" {time.monotonic() - start:.0f} s, at most {mib} MiB")  # fmt: skip
    for name, each in (("sent", sent), ("ended", ends)):
        print(name)
        for what, number in each.most_common():
            print(f"  {number:>9,}  {what}")


if __name__ == "__main__":
    main()
