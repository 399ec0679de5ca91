"""Train a model on an interaction log: `hfrec pretrain` from a checkout.

python scripts/pretrain.py --train_file interactions.csv --output_dir out --objective masked --max_length 100
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("pretrain", sys.argv[1:]))
