"""A clock that stands still until a test moves it."""


class Clock:
    """Is called as time.perf_counter is; a test sets `now`."""

    def __init__(self, now=0.0):
        self.now = now

    def __call__(self):
        return self.now
