"""Rank held-out items of users: `hfrec evaluate` from a checkout.

python scripts/evaluate.py --model_name_or_path out --test_file interactions.csv --output_dir evaluation
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("evaluate", sys.argv[1:]))
