"""Distributions of totals, however they are written."""

import json

import pytest

from extproc.planner.traffic.lengths import InputError
from extproc.planner.traffic.traces import read

POINTS = [[64, 0.1], [1024, 0.4], [8192, 1.0]]


def read_text(text, **options):
    return read(text.splitlines(keepends=True), "f", **options)


@pytest.mark.parametrize(
    "text",
    [
        "tokens,cdf\n64,0.1\n1024,0.4\n8192,1.0\n",
        "64,0.1\n1024,0.4\n8192,1\n",
        "Tokens;Percent\n64;10\n1024;40\n8192;100\n",
        "share (%),length\n10%,64\n40%,1024\n100%,8192\n",
        json.dumps(POINTS),
        json.dumps(POINTS, indent=2),
        json.dumps({"cdf": POINTS}),
        json.dumps({str(tokens): share for tokens, share in POINTS}),
        json.dumps({"cdf": {str(tokens): share for tokens, share in POINTS}}),
        json.dumps([{"cdf": share, "tokens": tokens} for tokens, share in POINTS]),
        "tokens,cdf\n0,0\n64,0.1\n1024,0.4\n8192,0.9999\n",
    ],
    ids=["csv", "no-header", "per-cent", "share-first", "pairs", "lines", "cdf-key", "object",
         "cdf-object", "objects", "from-0"],
)  # fmt: skip
def test_a_cdf_is_read_however_it_is_written(text):
    workload = read_text(text).requests
    shares = [workload.share_within(tokens) for tokens, _ in POINTS]
    assert shares == pytest.approx([0.1, 0.4, 1.0], abs=1e-4)


def test_a_cdf_counts_no_requests_and_says_what_it_assumes():
    reading = read_text("64,0.5\n128,1\n", output_share=0.3)
    assert reading.count == 0
    assert reading.notes == ("f: only totals; 30% of each is taken for output",)
    total = reading.requests.total
    assert reading.requests.output.sum() / total.sum() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tokens,cdf\n", "f: a CDF without rows; at least one is needed"),
        ("64,0.5\n64,1\n", "f:2: 64 tokens after 64; allowed: more in every row"),
        ("64,0.5\n128,0.4\n", "f:2: the share falls from 0.5 to 0.4; allowed: rising shares"),
        ("64,0.5\n128,0.97\n", "f:2: the last share is 0.97; allowed: 1, or 100 %"),
        ("64,0.5\n128,NaN\n",
         "f:2: the share is 'NaN'; allowed: from 0 to 1, or from 0 to 100 per cent"),
        ("64,0.5\n128,-1\n",
         "f:2: the share is '-1'; allowed: from 0 to 1, or from 0 to 100 per cent"),
        ("64,0.5\n1e9,1\n",
         "f:2: tokens is '1e9'; allowed: a whole number from 0 to 16777216"),
        ("1,0.5\n9,1\n", "f:1: 1 tokens hold requests; a request has at least 2"),
        ("[[64, 0.5], [128]]", "f:2: not a pair; allowed: tokens and the share within them"),
        ('{"cdf": 5}', "f: not a table; allowed: pairs of tokens and the share within them"),
    ],
)  # fmt: skip
def test_a_fault_has_one_clear_message_with_its_row(text, message):
    with pytest.raises(InputError) as caught:
        read_text(text)
    assert str(caught.value) == message
