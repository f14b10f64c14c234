"""What `dualpool plan` and `dualpool simulate` do with files, services and terminals."""
