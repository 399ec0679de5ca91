"""Bring a checkpoint up to date with a newer log: `hfrec refresh` from a checkout; exits with the verdict.

python scripts/refresh.py --model_name_or_path out --train_file log.csv --test_start 2024-06-01 --output_dir refreshed
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("refresh", sys.argv[1:]))
