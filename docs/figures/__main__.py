"""python -m docs.figures: finds the numbers of the documentation."""

import sys

from docs.figures.figures import main

sys.exit(main())
