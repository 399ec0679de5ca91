"""Recommend items for the histories in a file: `hfrec recommend` from a checkout.

python scripts/recommend.py --model_name_or_path out --history_file interactions.csv --output_file recommendations.csv
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("recommend", sys.argv[1:]))
