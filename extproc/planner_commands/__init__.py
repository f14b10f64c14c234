"""The input and output of `dualpool plan` and `dualpool simulate`: files, services, terminals."""
