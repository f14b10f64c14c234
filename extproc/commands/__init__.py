"""The commands of `dualpool`, one a module, of which only the one that is asked for is loaded."""
