"""`python -m ecosystem.cli`: the `orders` command where it is not installed as a script."""

from ecosystem.cli.main import main

main()
