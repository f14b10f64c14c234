"""The body of GET /lengths for given lengths."""

from extproc.budget.lengths import LengthHistogram, LengthRow, write_lengths


def lengths_json(histogram: LengthHistogram) -> bytes:
    return write_lengths(LengthRow("lengths", *row) for row in histogram.rows())
