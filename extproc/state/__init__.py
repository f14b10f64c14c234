"""What was learnt as bytes: snapshots of it, and the log of observations; waits for nothing."""
