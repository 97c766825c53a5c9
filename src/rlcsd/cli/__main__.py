"""`python -m rlcsd.cli`: the same as the command `rlcsd`."""

import sys

from .main import main

sys.exit(main())
