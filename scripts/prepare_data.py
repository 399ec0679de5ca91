"""Read, filter and report a log: `hfrec prepare` from a checkout.

python scripts/prepare_data.py --dataset ml-100k --output_dir prepared --min_user_interactions 5
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("prepare", sys.argv[1:]))
