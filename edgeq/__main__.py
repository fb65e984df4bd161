"""`python -m edgeq` is `edgeq`."""

import sys

from edgeq.cli import main

sys.exit(main())
