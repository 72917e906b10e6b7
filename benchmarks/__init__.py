"""What explanations cost: time, memory and products, beside the gradient and other libraries.

`make bench` runs all of it and writes `results.json`, from which `make docs` makes docs/performance.md.
`cases.py` says what is explained, `ways.py` and `peers.py` in which ways, `measuring.py` how it is measured.
The two programs about faithfulness in this folder measure no costs.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# What the tests have of networks, and to count products. Last, so that no name there hides a library.
sys.path += [str(ROOT / "tests" / folder) for folder in ("networks_explained", "comparisons")]
os.environ["HF_HUB_OFFLINE"] = "1"
# torch's profiler writes a line to stderr for each start and stop.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
