"""What requests look like: lengths, arrival times, and every file format they are read from."""
