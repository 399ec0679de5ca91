"""The study of user labels of the model cards: pretrain on MovieLens-1M, then a new head for each label.

python benchmarks/classification.py --data_dir data --output_dir outputs/classification

`--data_dir` holds ml-1m/interactions.csv.gz and ml-1m/users.csv.gz. What is done is kept. Needs scikit-learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from transfer import STUDIES, pretrained, step

LABELS = ("gender", "age", "occupation")


def main() -> None:
    """Parse the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args()
    log = options.data_dir / STUDIES["movielens"].source
    checkpoint = pretrained(STUDIES["movielens"], log, options.output_dir / "source")
    for label in LABELS:
        output = options.output_dir / label
        if (output / "classification_results.json").exists():
            continue
        words = ["--model_name_or_path", checkpoint, "--train_file", log, "--num_train_epochs", "6"]
        words += ["--label_file", options.data_dir / "ml-1m" / "users.csv.gz", "--label_column", label]
        step("finetune", "--task", "classification", "--cross_validate", "true", *words, "--output_dir", output)


if __name__ == "__main__":
    main()
