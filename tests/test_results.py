"""The README's table of results is that of the result files; a row is made from the recipes that it names."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Script = Callable[[str], Any]
ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_says_what_the_files_say(benchmark_script: Script) -> None:
    """A figure that was typed by hand stays when the run behind it is made again."""
    module = benchmark_script("quality/table")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert module.BEGIN in readme and module.END in readme
    assert module.with_table(readme) == readme, "run `python benchmarks/quality/table.py`"
    assert module.with_table(readme.replace(module.END, f"| typed by hand |\n{module.END}")) == readme


def test_a_blend_is_made_of_the_networks_of_its_seed_on_their_log(
    benchmark_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of another seed, or another log, would give a row that no command makes again."""
    reproduce = benchmark_script("quality/reproduce")
    monkeypatch.setenv("HFREC_DATA", "logs")
    made = [path.stem for path in reproduce.RECIPES.glob("*.yaml") if reproduce.settings_of(path.stem).get("networks")]
    assert len(made) >= 4
    for recipe in made:
        settings = reproduce.settings_of(recipe)
        seeds = range(6, 9) if settings.get("network_seeds") == 3 else [2]
        words = reproduce.words(recipe, 2, Path("runs"))
        networks = settings["networks"]
        assert words["model_name_or_path"] == [f"runs/{network}/seed-{of}" for network in networks for of in seeds]
        trained = [reproduce.words(network, 2, Path("runs")) for network in networks]
        for name in ("train_file", "dataset"):
            assert {log.get(name) for log in trained} == {words.get(name)}
        assert not {"networks", "network_seeds", "seed"} & set(words)


def test_what_is_fine_tuned_is_the_model_of_its_seed_on_its_log(
    benchmark_script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of another seed would be fine-tuned three times; on another log the row would say something else."""
    reproduce = benchmark_script("quality/reproduce")
    monkeypatch.setenv("HFREC_DATA", "logs")
    made = [path.stem for path in reproduce.RECIPES.glob("*.yaml") if "finetunes" in reproduce.settings_of(path.stem)]
    assert len(made) >= 2
    for recipe in made:
        settings = reproduce.settings_of(recipe)
        words, before = (reproduce.words(name, 2, Path("runs")) for name in (recipe, settings["finetunes"]))
        assert reproduce.command_of(settings) == "finetune" and "finetunes" not in words
        assert words["model_name_or_path"] == before["output_dir"] and words["seed"] == before["seed"] == 2
        assert [words.get(name) for name in ("train_file", "dataset")] == [
            before.get(name) for name in ("train_file", "dataset")
        ]


def test_no_network_is_in_two_blends_of_several_seeds(benchmark_script: Script) -> None:
    """Rows that shared networks would look more alike than three tries of the recipe are."""
    reproduce = benchmark_script("quality/reproduce")
    settings = {"networks": ["a", "b"], "network_seeds": 3}
    taken = [member for seed in range(4) for member in reproduce.members(settings, seed)]
    assert len(set(taken)) == len(taken) == 24
    assert reproduce.called(settings, 1) == [f"{name} seed {seed}" for name in "ab" for seed in (3, 4, 5)]
    assert reproduce.called({"networks": ["a", "b"]}, 1) == ["a", "b"]
    assert reproduce.members({"objective": "causal"}, 1) == []


def test_parts_of_a_blend_are_called_by_their_recipe(benchmark_script: Script) -> None:
    """Each network's folder is called after its seed: a table of them would say seed-0 was best."""
    reproduce = benchmark_script("quality/reproduce")
    found = {"blend": {"fit": {"parts": ["seed-0", "seed-0_network", "ease"]}}}
    names = reproduce.part_names(found, ["a-causal", "a-masked"])
    assert names == {"seed-0": "a-causal", "seed-0_network": "a-masked", "ease": "ease"}


def test_a_row_is_made_a_seed_at_a_time(benchmark_script: Script) -> None:
    """A third seed that took the place of the first two would be a mean of one, of other settings."""
    reproduce = benchmark_script("quality/reproduce")

    def summary(*values: float, seeds: list[int], steps: int = 5) -> dict[str, Any]:
        rows = [
            {"seed": seed, "filter_seen": {"ndcg@10": value, "hit_rate@10": 2 * value}}
            for seed, value in zip(seeds, values, strict=True)
        ]
        mean = reproduce.mean_of(rows, "filter_seen")
        return {"recipe": "a", "settings": {"steps": steps}, "decided_by": "filter_seen", "seeds": rows, "mean": mean}

    made = reproduce.with_earlier_seeds(summary(0.3, 0.5, seeds=[2, 1]), summary(0.1, 0.9, seeds=[0, 1]))
    assert [row["seed"] for row in made["seeds"]] == [0, 1, 2]
    assert made["mean"]["ndcg@10"] == pytest.approx(0.3)
    with pytest.raises(SystemExit, match="seeds 0 of the result file have another `settings`"):
        reproduce.with_earlier_seeds(summary(0.3, seeds=[1]), summary(0.1, seeds=[0], steps=6))
    again = summary(0.3, seeds=[0])
    assert reproduce.with_earlier_seeds(again, summary(0.1, seeds=[0], steps=6)) == again


@pytest.mark.slow
def test_a_row_of_a_blend_is_made_from_nothing(
    benchmark_script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network that is missing is trained first, and one that is finished is not trained again."""
    reproduce = benchmark_script("quality/reproduce")
    monkeypatch.setattr(reproduce, "RECIPES", tmp_path)
    monkeypatch.setattr(reproduce, "RESULTS", tmp_path / "results")
    small = "dataset: synthetic\nmax_length: 10\nmax_steps: 4\nhidden_size: 8\n"
    (tmp_path / "a-causal.yaml").write_text(f"{small}objective: causal\n")
    (tmp_path / "a-blend.yaml").write_text("networks: [a-causal]\nmethods: [item_knn]\n")
    runs = str(tmp_path / "runs")
    for recipe in ("a-blend", "a-causal"):
        monkeypatch.setattr(sys, "argv", ["reproduce.py", recipe, "--seeds", "0", "--output_dir", runs])
        reproduce.main()
    blend, network = (json.loads((tmp_path / "results" / f"a-{kind}.json").read_text()) for kind in ("blend", "causal"))
    assert set(blend["seeds"][0]["weights"]) <= {"a-causal", "item_knn"}
    setting = blend["decided_by"]
    assert blend["baselines"]["a-causal"]["ndcg@10"] == pytest.approx(network["seeds"][0][setting]["ndcg@10"])
    assert blend["seeds"][0]["cpu_seconds"] > network["seeds"][0]["cpu_seconds"] > 0


@pytest.mark.parametrize(
    ("card", "row", "named"),
    [
        ("l2sp", "**this model**", "fine-tuned with L2-SP (coupled, α = 0.01)"),
        ("l2sp", "popularity", "popularity"),
        ("l2sp", "item_knn", "item-kNN with recency"),
        ("l2sp", "ease", "EASE with recency"),
    ],
)
def test_the_demo_has_the_figures_of_its_cards(card: str, row: str, named: str) -> None:
    """The table of the page was typed by hand; the cards are what the demo wrote."""
    text = (ROOT / "model_cards" / f"ml-100k-demo-{card}.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} | filter seen |")]
    ndcg, hits = (cell.strip().replace("0.", ".") for cell in line.split("|")[3:5])
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert f"| {named} | {ndcg} | {hits} |" in page
