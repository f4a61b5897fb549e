"""``python -m redline``: the command where the script is not on the path."""

from redline.cli import main

main()
