"""``python -m avocado``: the command line, for launchers that start modules (torchrun)."""

from avocado.cli.main import main

main()
