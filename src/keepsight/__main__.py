"""``python -m keepsight`` is the command line."""

from keepsight.cli import main

main()
