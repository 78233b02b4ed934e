"""`python -m modelwright` is the same command."""

from modelwright.cli import main

main()
