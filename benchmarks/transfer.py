"""The transfer studies of the model cards, each from its raw log to tables and plots: filter, pretrain, study.

python benchmarks/transfer.py retail --data_dir data --output_dir outputs/retail

`--data_dir` holds the logs under the names below. What is done is kept: an interrupted study goes on. Needs matplotlib
and peft.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hfrec_command import main as hfrec

RETAIL = "online-retail/interactions.csv.gz"
ML_1M = ["--eval_strategy", "steps", "--eval_steps", "500", "--save_strategy", "steps", "--save_steps", "500"]
ML_1M += ["--warmup_steps", "200", "--early_stopping_patience", "0"]
FEW_ARMS = ["popularity", "item_knn", "scratch", "zero_shot", "finetune", "l2sp_coupled", "l2sp_decoupled"]
FEW = ["--fractions", "0.25", "0.5", "1.0", "--arms", *FEW_ARMS]  # 1 % of a country is nobody
ALL_SHARES = ["0.01", "0.05", "0.1", "0.25", "0.5", "1.0"]


@dataclass(frozen=True)
class Study:
    """A source, a target and what `hfrec prepare`, `hfrec pretrain` and `hfrec study` are told about them.

    Args:
        source, target: Logs below `--data_dir`.
        source_filter, target_filter: Flags of `hfrec prepare`; without any the log is taken as it is.
        pretrain, study: Flags of these commands.
    """

    source: str
    target: str
    source_filter: Sequence[str] = ()
    target_filter: Sequence[str] = ()
    pretrain: Sequence[str] = ()
    study: Sequence[str] = ()


def retail(target_filter: str, *study: str) -> Study:
    """United Kingdom to another market; of repeated purchases the first counts, so that every target is new."""
    return Study(
        source=RETAIL,
        target=RETAIL,
        source_filter=["--where", "country=United Kingdom", "--duplicates", "first"],
        target_filter=["--where", target_filter, "--duplicates", "first"],
        pretrain=["--num_train_epochs", "40", "--max_length", "50"],
        study=study,
    )


STUDIES = {
    "movielens": Study(
        source="ml-1m/interactions.csv.gz",
        target="ml-100k/interactions.csv.gz",
        pretrain=["--num_train_epochs", "40", "--max_length", "100", *ML_1M],
        study=["--mapping_file", "{data}/pair_ml1m_ml100k.csv", "--tradeoff_fraction", "0.25"],
    ),
    "retail": retail("country!=United Kingdom", "--fractions", *ALL_SHARES),
    "retail-germany": retail("country=Germany", *FEW),
    "retail-france": retail("country=France", *FEW),
    "retail-spain": retail("country=Spain", *FEW),
    "xmarket": Study(
        source="xmarket-electronics-ca/interactions.csv.gz",
        target="xmarket-electronics-in/interactions.csv.gz",
        pretrain=["--num_train_epochs", "100", "--max_length", "50"],
        study=["--fractions", *ALL_SHARES, "--tradeoff_fraction", "1.0"],
    ),
}


def run(name: str, data: Path, output: Path) -> None:
    """Do what is not done yet of a study; stops at the first command that fails."""
    study = STUDIES[name]
    source = prepared(data / study.source, study.source_filter, output / "source-log")
    target = prepared(data / study.target, study.target_filter, output / "target-log")
    checkpoint = pretrained(study, source, output / "source")
    words = [word.format(data=data) for word in study.study]
    logs = ["--source_file", source, "--target_file", target]
    step("study", "--model_name_or_path", checkpoint, *logs, "--output_dir", output / "study", *words)


def pretrained(study: Study, log: Path, folder: Path) -> Path:
    """The folder of the source's model, trained where it is not there yet."""
    if not (folder / "all_results.json").exists():
        step("pretrain", "--train_file", log, "--output_dir", folder, "--disable_tqdm", "true", *study.pretrain)
    return folder


def prepared(log: Path, flags: Sequence[str], folder: Path) -> Path:
    """The log, filtered where flags say so."""
    if not flags:
        return log
    if not folder.exists():
        step("prepare", "--train_file", log, "--output_dir", folder, *flags)
    return folder / "interactions.parquet"


def step(*words: str | Path) -> None:
    """One hfrec command."""
    code = hfrec([str(word) for word in words])
    if code:
        sys.exit(code)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args()
    run(options.study, options.data_dir, options.output_dir)


if __name__ == "__main__":
    main()
