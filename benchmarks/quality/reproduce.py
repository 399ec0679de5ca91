"""Make a row of the results again, over three seeds, from a settings file of `recipes/`.

A file that names `networks` is a blend: the networks of these recipes, of the same seed, mixed by `hfrec blend` with
the classical methods; with `network_seeds: n` the blend of seed s has each network with the seeds n s to n s + n - 1,
so that no network is in two of them. A file that names the recipe that it `finetunes` is the settings of `hfrec
finetune`, from that model of the same seed on the same log. Any other file is the settings of `hfrec pretrain`. A seed
whose run is finished is not run again; what is missing of the networks is trained first. What is kept lies in
`benchmarks/quality/results/RECIPE.json`, from which the table of the README is made (`table.py`). Seeds that lie there
and are not named stay, so that a row can be made a seed at a time.

python benchmarks/quality/reproduce.py ml-100k-causal
HFREC_DATA=data python benchmarks/quality/reproduce.py beauty-causal   # the file of the settings lies in this folder
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parent / "recipes"
FILES = ("train_file", "items_file", "encoder")  # settings that name what lies in the folder of logs
METRICS = ("ndcg@10", "hit_rate@10")
KEPT = ("ndcg@10", "ndcg@10_ci", "hit_rate@10", "hit_rate@10_ci")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", choices=sorted(path.stem for path in RECIPES.glob("*.yaml")))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/reproduce"), help="Folder of the runs.")
    options = parser.parse_args()
    runs = [run(options.recipe, seed, options.output_dir) for seed in options.seeds]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{options.recipe}.json"
    made = summary(options.recipe, runs)
    if path.exists():
        made = with_earlier_seeds(made, json.loads(path.read_text(encoding="utf-8")))
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(path)


def with_earlier_seeds(made: dict[str, Any], earlier: dict[str, Any]) -> dict[str, Any]:
    """A summary with the seeds that an earlier one holds beside those just run.

    Raises:
        SystemExit: The earlier one is of other settings, another protocol or other users.
    """
    new = {row["seed"] for row in made["seeds"]}
    kept = [row for row in earlier["seeds"] if row["seed"] not in new]
    for name in ("settings", "chosen", "protocol", "decided_by", "n_users"):
        if kept and made.get(name) != earlier.get(name):
            seeds = ", ".join(str(row["seed"]) for row in kept)
            raise SystemExit(
                f"{made['recipe']}: seeds {seeds} of the result file have another `{name}` than this run "
                f"({earlier.get(name)!r}, now {made.get(name)!r}): run all seeds again or delete the file"
            )
    rows = sorted([*kept, *made["seeds"]], key=lambda row: int(row["seed"]))
    return {**made, "seeds": rows, "mean": mean_of(rows, made["decided_by"])}


def mean_of(rows: list[dict[str, Any]], setting: str) -> dict[str, float]:
    """The mean of each metric over seeds, in the setting that decides."""
    return {metric: float(np.mean([row[setting][metric] for row in rows])) for metric in METRICS}


def settings_of(recipe: str) -> dict[str, Any]:
    """What the settings file of a recipe holds."""
    settings: dict[str, Any] = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8"))
    return settings


def run(recipe: str, seed: int, output_dir: Path) -> dict[str, Any]:
    """The results of one seed, from its folder or from a run of its own process; CPU seconds with those of networks."""
    settings = settings_of(recipe)
    networks = [run(network, of, output_dir) for network, of in members(settings, seed)]
    folder, cpu = output_dir / recipe / f"seed-{seed}", output_dir / recipe / f"seed-{seed}.cpu"
    if not (folder / "all_results.json").exists():
        file = folder.with_suffix(".yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(words(recipe, seed, output_dir)), encoding="utf-8")
        before = os.times().children_user
        code = "import sys; from hfrec_command import main; sys.exit(main(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", code, command_of(settings), str(file)], check=True)
        cpu.write_text(f"{os.times().children_user - before:.0f}", encoding="utf-8")
    results: dict[str, Any] = json.loads((folder / "all_results.json").read_text(encoding="utf-8"))
    spent = [float(cpu.read_text()) if cpu.exists() else None, *(network["cpu_seconds"] for network in networks)]
    return {**results, "seed": seed, "cpu_seconds": None if None in spent else sum(spent)}


def command_of(settings: dict[str, Any]) -> str:
    """The command of a recipe: what its file names decides."""
    return "blend" if "networks" in settings else "finetune" if "finetunes" in settings else "pretrain"


def members(settings: dict[str, Any], seed: int) -> list[tuple[str, int]]:
    """The networks that a recipe starts from and the seed of each: those of a blend, or what is fine-tuned."""
    if "finetunes" in settings:
        return [(settings["finetunes"], seed)]
    each = settings.get("network_seeds", 1)
    return [(network, each * seed + more) for network in settings.get("networks", []) for more in range(each)]


def called(settings: dict[str, Any], seed: int) -> list[str]:
    """What the networks of a blend are called in its row: by their recipe, with the seed where there are several."""
    if command_of(settings) != "blend":
        return []
    several = "network_seeds" in settings
    return [f"{network} seed {of}" if several else network for network, of in members(settings, seed)]


def words(recipe: str, seed: int, output_dir: Path) -> dict[str, Any]:
    """The settings of the command that makes one seed of a recipe."""
    settings = settings_of(recipe)
    own = {name: value for name, value in settings.items() if name not in ("networks", "network_seeds", "finetunes")}
    found = {**own, "output_dir": str(output_dir / recipe / f"seed-{seed}")}
    networks, command = members(settings, seed), command_of(settings)
    if networks:
        folders = [str(output_dir / network / f"seed-{of}") for network, of in networks]
        found["model_name_or_path"] = folders if command == "blend" else folders[0]
        log = settings_of(networks[0][0])
        found |= {name: log[name] for name in ("train_file", "dataset") if name in log}
    if command != "blend":
        found |= {"seed": seed, "disable_tqdm": True}
    files = {name: str(Path(os.environ.get("HFREC_DATA", ".")) / found[name]) for name in FILES if name in found}
    return {**found, **files}


def summary(recipe: str, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of the runs of a recipe."""
    settings, first = settings_of(recipe), runs[0]
    networks = called(settings, first["seed"])
    setting = first["test"]["decided_by"]
    rows = [
        {
            "seed": found["seed"],
            "cpu_seconds": found["cpu_seconds"],
            **(blended(found, settings) if networks else {"max_steps": found["hyperparameters"]["max_steps"]}),
            **{name: {key: found["test"][name][key] for key in KEPT} for name in ("filter_seen", "unfiltered")},
            "verdict": found["test"]["verdict"]["text"],
        }
        for found in runs
    ]
    names = part_names(first, networks) if networks else {}
    return {
        "recipe": recipe,
        "command": f"make reproduce RECIPE={recipe}",
        "settings": {name: value for name, value in settings.items() if name != "output_dir"},
        **({"chosen": first["recipe"]} if "recipe" in first else {}),
        "protocol": first["test"]["protocol"],
        "decided_by": setting,
        "n_users": first["test"]["n_users"],
        "seeds": rows,
        "mean": mean_of(rows, setting),
        "baselines": {
            names.get(name, name): {key: found[setting][key] for key in KEPT}
            for name, found in first["test"]["baselines"].items()
        },
        "versions": first["versions"],
    }


def blended(found: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What a blend is made of, and how far it is above its best part on the test, with a 95 % interval."""
    blend, names = found["blend"], part_names(found, called(settings, found["seed"]))
    return {
        "weights": {names[part["name"]]: part["weight"] for part in blend["components"]},
        "best_part_on_validation": names[blend["fit"]["best_part"]],
        "minus_best_part": blend["minus_best_part"][found["test"]["decided_by"]],
    }


def part_names(found: dict[str, Any], networks: list[str]) -> dict[str, str]:
    """The recipe in place of the folder of each network, which are the first parts of a blend."""
    parts = found["blend"]["fit"]["parts"]
    return dict(zip(parts, [*networks, *parts[len(networks) :]], strict=True))


if __name__ == "__main__":
    main()
