"""Make a row of the results again: `hfrec pretrain` with a settings file of `recipes/`, over three seeds.

A seed whose run is finished is not run again. What is kept lies in `benchmarks/quality/results/RECIPE.json`, from which
the table of the README is made (`table.py`).

python benchmarks/quality/reproduce.py ml-100k-causal
HFREC_DATA=data python benchmarks/quality/reproduce.py beauty-causal   # the file of the settings lies in this folder
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parent / "recipes"
METRICS = ("ndcg@10", "hit_rate@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/reproduce"), help="Folder of the runs.")
    options = parser.parse_args()
    settings = yaml.safe_load((RECIPES / f"{options.recipe}.yaml").read_text(encoding="utf-8"))
    runs = [run(options.recipe, settings, seed, options.output_dir) for seed in options.seeds]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.recipe}.json"
    path.write_text(json.dumps(summary(options.recipe, settings, runs), indent=1) + "\n", encoding="utf-8")
    print(path)


def run(recipe: str, settings: dict[str, Any], seed: int, output_dir: Path) -> dict[str, Any]:
    """The results of one seed, from its folder or from a run of its own process."""
    folder = output_dir / recipe / f"seed-{seed}"
    if not (folder / "all_results.json").exists():
        words = {**settings, "output_dir": str(folder), "seed": seed, "disable_tqdm": True}
        if "train_file" in words:
            words["train_file"] = str(Path(os.environ.get("HFREC_DATA", ".")) / words["train_file"])
        file = output_dir / recipe / f"seed-{seed}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(words), encoding="utf-8")
        before = time.time(), os.times()
        code = "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", code, "pretrain", str(file)], check=True)
        used = os.times().children_user - before[1].children_user
        (output_dir / recipe / f"seed-{seed}.cpu").write_text(f"{used:.0f}", encoding="utf-8")
    results: dict[str, Any] = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    cpu = output_dir / recipe / f"seed-{seed}.cpu"
    return {**results, "cpu_seconds": float(cpu.read_text()) if cpu.exists() else None}


def summary(recipe: str, settings: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of the runs of a recipe."""
    first = runs[0]
    kept = ("ndcg@10", "ndcg@10_ci", "hit_rate@10", "hit_rate@10_ci")
    rows = [
        {
            "seed": found["seed"],
            "cpu_seconds": found["cpu_seconds"],
            "max_steps": found["hyperparameters"]["max_steps"],
            **{name: {key: found["test"][name][key] for key in kept} for name in ("filter_seen", "unfiltered")},
            "verdict": found["test"]["verdict"]["text"],
        }
        for found in runs
    ]
    setting = first["test"]["decided_by"]
    return {
        "recipe": recipe,
        "command": f"make reproduce RECIPE={recipe}",
        "settings": {name: value for name, value in settings.items() if name != "output_dir"},
        "chosen": first["recipe"],
        "protocol": first["test"]["protocol"],
        "decided_by": setting,
        "n_users": first["test"]["n_users"],
        "seeds": rows,
        "mean": {metric: float(np.mean([row[setting][metric] for row in rows])) for metric in METRICS},
        "baselines": {
            name: {key: found[setting][key] for key in kept} for name, found in first["test"]["baselines"].items()
        },
        "versions": first["versions"],
    }


if __name__ == "__main__":
    main()
