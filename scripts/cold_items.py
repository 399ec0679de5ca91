"""Measure how well items that were never trained are ranked: `hfrec cold_items` from a checkout.

python scripts/cold_items.py --dataset ml-100k --category_column genres --output_dir cold --objective causal
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("cold_items", sys.argv[1:]))
