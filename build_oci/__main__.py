"""`python -m build_oci`."""

import sys

from build_oci.cli import main

if __name__ == "__main__":
    sys.exit(main())
