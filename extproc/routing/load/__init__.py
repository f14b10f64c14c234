"""The load of the pools: what their servers report, and which share of requests moves for it.

`report` reads what one server reports, `pool_load` adds up the servers of a pool, and `spill`
decides. No I/O, no clock: times and random numbers are passed in.
"""
