"""`dualpool doctor`: looks at a live installation, and says what is wrong with it and what to do.

Invariant: it only reads, and what it reads is bounded in size and time.
"""
