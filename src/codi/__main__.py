"""`python -m codi` is the command `codi`."""

import sys

from codi.cli import main

if __name__ == "__main__":
    sys.exit(main())
