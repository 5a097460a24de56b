"""`python -m gateway` is the same as the command `gateway`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a checkout can be run without having been installed
    sys.exit(
        "The gateway needs Python 3.11 or newer; this is {}.{}. Name another, such as python3.13 -m gateway, "
        "or get one: uv python install 3.13.".format(*sys.version_info)
    )

from gateway.cli.main import main

if __name__ == "__main__":
    main(prog_name="gateway")
