"""Where transfer pays: `hfrec study` from a checkout.

python scripts/transfer_study.py --model_name_or_path out --source_file a.csv --target_file b.csv --output_dir study
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("study", sys.argv[1:]))
