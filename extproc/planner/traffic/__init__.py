"""Traffic: lengths, arrival times, and the file formats they are read from."""
