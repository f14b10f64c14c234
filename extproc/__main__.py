"""`python -m extproc` is the command `dualpool`."""

from extproc.cli import main

raise SystemExit(main())
