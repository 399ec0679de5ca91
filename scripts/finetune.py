"""Go on from a checkpoint on another log: `hfrec finetune` from a checkout.

python scripts/finetune.py --model_name_or_path out --train_file target.csv --output_dir tuned --l2sp_alpha 0.01
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("finetune", sys.argv[1:]))
