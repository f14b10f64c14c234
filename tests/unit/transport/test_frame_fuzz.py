"""Random frames, as `python -m tests.support.frame_fuzz` sends millions of them."""

from tests.support.frame_fuzz import fuzz


def test_random_frames_break_no_invariant():
    sent, ends = fuzz(20_000, seed=7)
    assert sent.total() >= 20_000
    assert ends["the peer left"]
