"""Write a checkpoint as an ONNX graph that recommends without torch: `hfrec export` from a checkout.

python scripts/export.py --model_name_or_path out --output_dir exported
"""

import sys

from hfrec.commands import run

if __name__ == "__main__":
    sys.exit(run("export", sys.argv[1:]))
