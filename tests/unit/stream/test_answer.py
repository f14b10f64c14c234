"""What an answer shows of its server."""

import pytest

from extproc.response.reader import Finish, Refused, Unlearnable, Usage
from extproc.stream.answer import PendingAnswer
from extproc.stream.session import Direction, Head
from extproc.stream.usage_asking import UsageSeen


def pending(status="200", **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return PendingAnswer(Head(Direction.RESPONSE, {":status": status} | named, end_of_stream=False))


@pytest.mark.parametrize(
    ("outcome", "seen"),
    [
        (Usage(3, 2, 0, Finish.STOP), UsageSeen.STATED),
        (Unlearnable.ABSENT, UsageSeen.ABSENT),
        (Unlearnable.INCOMPLETE, UsageSeen.UNHEARD),
        (Unlearnable.ERROR, UsageSeen.NOTHING),
        (Refused(400), UsageSeen.NOTHING),
    ],
)
def test_a_successful_answer_shows_by_its_outcome(outcome, seen):
    assert pending().shows(outcome) is seen


def test_an_answer_that_breaks_off_shows_nothing():
    answer = pending(content_type="text/event-stream")
    answer.feed(b"data: {")
    assert answer.shows(answer.reader.finish()) is UsageSeen.NOTHING


@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        ("400", [b'{"message": "unknown field stream_', b'options"}'], UsageSeen.REFUSED),
        ("422", [b'{"detail": [{"loc": ["body", "stream_options"]}]}'], UsageSeen.REFUSED),
        ("400", [b'{"message": "temperature must be positive"}'], UsageSeen.NOTHING),
        ("422", [], UsageSeen.SUSPECT),
        ("500", [b"stream_options"], UsageSeen.NOTHING),
        ("400", [b"x" * 5000, b"stream_options"], UsageSeen.NOTHING),
    ],
)
def test_an_error_shows_whether_it_names_our_field(status, body, seen):
    answer = pending(status, content_type="application/json")
    for piece in body:
        answer.feed(piece)
    assert answer.shows(answer.reader.finish()) is seen


@pytest.mark.parametrize("status", ["", "2", "99999999999", "\xb2\xb2\xb2", "ok!"])
def test_a_status_that_is_none_is_an_error(status):
    assert pending(status).reader.finish() is Unlearnable.ERROR
