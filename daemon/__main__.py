"""``python -m familiar.daemon`` is the command ``familiar``."""

from familiar.daemon.cli import main

main()
