"""Files and live services as one input."""

import gzip
import http.server
import threading
from contextlib import contextmanager

import pytest

from extproc.budget.lengths import LengthHistogram
from extproc.planner.traffic.lengths import InputError, Trace, Workload
from extproc.planner_commands.inputs import InputOptions, read_inputs
from extproc.planner_commands.live import read_services
from tests.support.served_lengths import lengths_json

CSV = "prompt_tokens,completion_tokens\n10,2\n20,2\n"
CDF = "tokens,cdf\n100,1\n"
TIMED = "prompt_tokens,completion_tokens,at_s\n10,2,5\n20,2,7\n"


def write(folder, **texts):
    files = tuple(folder / name for name in texts)
    for file, text in zip(files, texts.values(), strict=True):
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return files


def fault(**options):
    with pytest.raises(InputError) as caught:
        read_inputs(InputOptions(**options))
    return str(caught.value)


def histogram(*lengths):
    seen = LengthHistogram()
    for length in lengths:
        seen.observe("prose/m", *length)
    return lengths_json(seen)


@contextmanager
def serving(body, path="/lengths"):
    """Serve one body at this path on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == path else 404)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_is_known_by_its_columns_and_compressed_by_its_bytes(tmp_path):
    files = write(tmp_path, misnamed=gzip.compress(CSV.encode("utf-8-sig")))
    assert read_inputs(InputOptions(files=files)).requests.total.tolist() == [12, 22]


def test_files_without_weights_count_by_their_requests(tmp_path):
    files = write(tmp_path, a=CSV, b=CSV + "90,2\n" * 2)
    reading = read_inputs(InputOptions(files=files))
    assert reading.requests.share_within(22) == pytest.approx(4 / 6)
    assert reading.notes == ("inputs are merged without times, with 33.3%, 66.7% of the requests",)


def test_an_input_that_counts_no_requests_weighs_as_much_as_the_others(tmp_path):
    files = write(tmp_path, a=CSV, b=CDF)
    assert read_inputs(InputOptions(files=files)).requests.share_within(22) == 0.5


def test_weights_decide_where_they_are_given(tmp_path):
    files = write(tmp_path, a=TIMED, b=CDF)
    reading = read_inputs(InputOptions(files=files, weights=(9, 1)))
    assert isinstance(reading.requests, Workload)
    assert reading.requests.share_within(22) == pytest.approx(0.9)


def test_traces_without_weights_are_overlaid(tmp_path):
    files = write(tmp_path, a=TIMED, b=TIMED)
    reading = read_inputs(InputOptions(files=files))
    assert isinstance(reading.requests, Trace)
    assert reading.requests.at_s.tolist() == [0, 0, 2, 2]
    assert reading.count == 4


def test_replicas_of_a_service_merge_by_what_each_has_seen():
    with serving(histogram((10, 2), (10, 2), (10, 2))) as a, serving(histogram((20, 2))) as b:
        reading = read_services((a, f"{b}/lengths"))
    assert reading.count == 4
    assert reading.requests.share_within(12) == 0.75


def test_a_secret_of_an_address_is_not_named():
    with serving(histogram((10, 2)), "/lengths?token=s3cret") as address:
        reading = read_services((f"{address}?token=s3cret",))
    assert reading.requests.name == f"{address}?***"


def test_the_categories_of_a_service_are_kept_the_most_frequent_first():
    seen = LengthHistogram()
    for category, prompt in (("code/m", 20), ("prose/m", 10), ("prose/m", 12)):
        seen.observe(category, prompt, 2)
    with serving(lengths_json(seen)) as address:
        categories = read_services((address,)).categories
    assert [(each.lengths.name, each.count) for each in categories] == [
        ("prose/m", 2),
        ("code/m", 1),
    ]
    assert categories[0].lengths.total.tolist() == [12, 14]


def test_services_are_one_input_beside_the_files(tmp_path):
    files = write(tmp_path, a=CDF)
    with serving(histogram((10, 2))) as a, serving(histogram((20, 2))) as b:
        options = InputOptions(files=files, services=(a, b), weights=(1, 3))
        assert read_inputs(options).requests.share_within(22) == 0.75


def test_an_address_without_lengths_is_said_so():
    with serving(b"") as address:
        message = fault(services=(f"{address}/metrics",))
    assert message == (
        f"{address}/metrics: GET {address}/metrics/lengths returned HTTP 404; "
        "allowed: the address of listen.http"
    )


def test_an_answer_that_is_no_histogram_is_said_so():
    with serving(b"[]") as address:
        assert fault(services=(address,)).endswith("allowed: a service's GET /lengths")


def test_a_service_that_is_not_there_is_said_so():
    with serving(b"") as address:
        pass
    words = fault(services=(address,))
    assert words.endswith("connection refused; is the service running?")
    assert "Errno" not in words


def test_an_address_needs_no_scheme():
    with serving(b"[]") as address:
        bare = address.removeprefix("http://")
        assert fault(services=(bare,)).endswith("allowed: a service's GET /lengths")


@pytest.mark.parametrize("port", [0, 99_999])
def test_a_port_out_of_range_is_said_so(port):
    assert "port" in fault(services=(f"http://127.0.0.1:{port}",)).partition("; allowed: ")[0][20:]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "http://"])
def test_what_is_no_http_address_is_refused(address):
    assert fault(services=(address,)).startswith(f"{address}: not an HTTP address; allowed: ")


def test_a_file_that_cannot_be_read_is_said_so(tmp_path):
    absent = tmp_path / "absent"
    assert (
        fault(files=(absent,)) == f"{absent}: No such file or directory; allowed: a readable file"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "not UTF-8 (byte 0); allowed: text in UTF-8"),
        (gzip.compress(CSV.encode(), mtime=0)[:-12], "broken gzip: "),
        (gzip.compress(CSV.encode(), mtime=0)[:10] + b"x" * 30, "broken gzip: "),
    ],
)
def test_a_broken_file_is_said_so(tmp_path, content, message):
    files = write(tmp_path, a=content)
    assert fault(files=files).startswith(f"{files[0]}: {message}")


def test_options_that_do_not_fit_are_refused(tmp_path):
    files = write(tmp_path, a=CSV)
    assert fault() == "FILE: missing; allowed: files, or --from URL"
    assert fault(files=files, weights=(1, 2)).startswith("--weight: 2 for 1 inputs; ")
    assert fault(files=files, weights=(-1,)).startswith("--weight: -1 is not allowed")
    assert fault(files=files, output_share=1.0).startswith("--output-share: 1 is not allowed")
