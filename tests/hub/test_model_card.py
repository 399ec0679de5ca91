"""Cards state what was measured, with the metadata that a hub reads, and their code runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.csv
import pytest
import yaml
from huggingface_hub import ModelCard

from hfrec import synthetic_tables
from hfrec.hub.model_card import set_license, write_model_card
from hfrec_command import main
from tests.hub.conftest import ROOT

TINY = ["--max_length", "12", "--hidden_size", "16", "--num_hidden_layers", "1", "--per_device_train_batch_size", "16"]
QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0", "--num_train_epochs", "1"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained and a fine-tuned run, as the commands leave them."""
    folder = tmp_path_factory.mktemp("runs")
    log, _ = synthetic_tables(num_users=60, num_items=30, num_groups=4, min_length=5, max_length=14)
    pyarrow.csv.write_csv(log, folder / "shop.csv")
    shared = ["--train_file", str(folder / "shop.csv"), *QUIET]
    assert main(["pretrain", *shared, *TINY, "--objective", "masked", "--output_dir", str(folder / "pretrained")]) == 0
    start = ["--model_name_or_path", str(folder / "pretrained"), "--l2sp_alpha", "0.5"]
    assert main(["finetune", *shared, *start, "--output_dir", str(folder / "tuned")]) == 0
    return folder


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "all_results.json").read_text())
    return results


def test_a_run_writes_a_card_of_measured_facts(runs: Path) -> None:
    """A card filled in by hand, or by the stock `Trainer`, holds no ranking metric and no protocol."""
    folder = runs / "tuned"
    card, results = ModelCard.load(folder / "README.md"), results_of(folder)
    test = results["test"]
    for row in (test, *test["baselines"].values()):
        low, high = row["filter_seen"]["ndcg@10_ci"]
        assert f"{row['filter_seen']['ndcg@10']:.4f} [{low:.4f}, {high:.4f}]" in card.text
    assert f"`{results['data']['train_fingerprint']}`" in card.text
    assert "| Started from | pretrained |" in card.text
    assert "| L2-SP | coupled, α = 0.5, β = 0.0 |" in card.text
    assert re.search(r"‖θ − θ⁰‖ by block \| \S+ [0-9.e-]+", card.text)
    assert f"{results['sizes']['interactions']:,} interactions in the training part" in card.text
    assert "learning_rate 0.001" in card.text
    assert f"| Seed | {results['seed']} |" in card.text
    assert "| Data set | shop.csv |" in card.text
    assert str(runs) not in str(card), "the paths of a machine are nobody's business"


def test_metadata_holds_what_the_hub_reads(runs: Path) -> None:
    """Metrics that are only in the text can be neither searched nor compared."""
    card, results = ModelCard.load(runs / "tuned" / "README.md"), results_of(runs / "tuned")
    data = card.data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "recommendation")
    assert {"hfrec", "sequential-recommendation", "masked", "l2-sp"} <= set(data.tags)
    assert data.license is None, "nobody said which"
    values = {(entry.metric_type, entry.metric_args["filter_seen"]): entry.metric_value for entry in data.eval_results}
    for setting in ("filter_seen", "unfiltered"):
        for metric in ("ndcg@10", "hit_rate@10", "mrr@10"):
            assert values[metric, setting == "filter_seen"] == results["test"][setting][metric]


def test_its_python_runs(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first thing that a reader does with a card is to paste its code."""
    card = write_model_card(runs / "pretrained", repo_id="ann/films").read_text()
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        assert "ann/films" in block
        exec(compile(block.replace("ann/films", str(runs / "pretrained")), "README.md", "exec"), names)
    assert [item["rank"] for item in names["recommendations"]] == list(range(1, 11))
    assert names["model"].config.vocab_size == len(names["tokenizer"])


def test_names_of_the_hub_become_metadata_and_eval_results(runs: Path, tmp_path: Path) -> None:
    """A base model or a data set that is a path of this machine would be a dead link."""
    folder = shutil.copytree(runs / "tuned", tmp_path / "tuned")
    results = results_of(folder)
    results["finetuning"] |= {"model_name_or_path": "ann/base", "model_revision": "v1"}
    results["settings"] |= {"dataset": "ann/clicks", "train_file": None}
    results["data"]["source"] = "ann/clicks"
    (folder / "all_results.json").write_text(json.dumps(results))
    card = ModelCard.load(write_model_card(folder, license="apache-2.0", dataset_license="CC-BY-4.0"))
    assert (card.data.base_model, card.data.datasets, card.data.license) == ("ann/base", ["ann/clicks"], "apache-2.0")
    assert "| Started from | ann/base, revision v1 |" in card.text
    assert "| Licence and source | CC-BY-4.0 |" in card.text
    entries = yaml.safe_load((folder / ".eval_results" / "hfrec.yaml").read_text())
    assert entries[0]["dataset"] == {"id": "ann/clicks", "task_id": "leave_one_out"}
    decides = results["test"]["decided_by"]
    assert entries[0]["value"] == results["test"][decides]["ndcg@10"]
    assert ("seen items filtered" in entries[0]["notes"]) == (decides == "filter_seen")
    parse = pytest.importorskip("huggingface_hub._eval_results").parse_eval_result_entries
    assert parse(entries)[0].dataset_id == "ann/clicks"
    assert not (runs / "tuned" / ".eval_results").exists()


def test_a_card_needs_results_and_holds_no_token(runs: Path, tmp_path: Path) -> None:
    """A card without numbers looks like one whose numbers are good; a token in a setting would be published."""
    folder = shutil.copytree(runs / "tuned", tmp_path / "tuned")
    results = results_of(folder)
    results["data"]["source"] = "hf_secretsecretsecret"
    (folder / "all_results.json").write_text(json.dumps(results))
    assert "secretsecret" not in write_model_card(folder).read_text()
    (folder / "all_results.json").unlink()
    with pytest.raises(ValueError, match="no test results"):
        write_model_card(folder)


def test_a_card_says_what_items_are_made_of(runs: Path, tmp_path: Path) -> None:
    """Who would bring a catalogue of their own must know the columns and the encoder, and not read that none fits."""
    folder = shutil.copytree(runs / "pretrained", tmp_path / "made")
    encoder = {"encoder": "/home/ann/minilm", "fingerprint": "ab" * 32, "pooling": "mean"}
    blocks = [{"kind": "text", "column": "title", **encoder}, {"kind": "categories", "column": "brand"}]
    config = json.loads((folder / "config.json").read_text())
    config |= {"item_representation": "content+id", "item_content": {"blocks": blocks}}
    (folder / "config.json").write_text(json.dumps(config))
    text = write_model_card(folder).read_text()
    made = "text of title (minilm, abababababababab, mean pooling); categories of brand"
    assert f"| Items are made of | content+id: {made} |" in text
    assert "takes up another catalogue that has title, brand" in text
    assert "and no others" not in text
    assert "and no others" in (runs / "pretrained" / "README.md").read_text()


def test_a_seed_of_zero_is_stated(runs: Path, tmp_path: Path) -> None:
    """To a template, 0 is as good as nothing."""
    folder = shutil.copytree(runs / "tuned", tmp_path / "tuned")
    (folder / "all_results.json").write_text(json.dumps({**results_of(folder), "seed": 0}))
    assert "| Seed | 0 |" in write_model_card(folder).read_text()


def test_a_licence_is_stated_where_somebody_gave_it(runs: Path, tmp_path: Path) -> None:
    """A hub hides what has no licence, and a licence that nobody gave is a lie: default, base and data give none."""
    start = ["--model_name_or_path", str(runs / "pretrained"), "--license", "mit"]
    words = ["finetune", "--train_file", str(runs / "shop.csv"), *QUIET, *start]
    assert main([*words, "--output_dir", str(tmp_path / "tuned")]) == 0
    path = tmp_path / "tuned" / "README.md"
    before = ModelCard.load(path)
    assert before.data.license == "mit"
    set_license(tmp_path / "tuned", "apache-2.0")
    after = ModelCard.load(path)
    assert after.text == before.text
    assert after.data.to_dict() == {**before.data.to_dict(), "license": "apache-2.0"}
    for run in ("pretrained", "tuned"):
        assert "license" not in ModelCard.load(runs / run / "README.md").data.to_dict()


def test_a_licence_needs_a_card(tmp_path: Path) -> None:
    """A flag that changes nothing leaves its user in the belief that it did."""
    with pytest.raises(ValueError, match=r"has no README\.md"):
        set_license(tmp_path, "mit")


@pytest.mark.parametrize("path", sorted((ROOT / "model_cards").glob("ml-*.md")), ids=lambda path: path.stem)
def test_the_cards_of_recipes_state_everything(path: Path) -> None:
    """A published card with a blank or a path of somebody's machine was not looked at."""
    card = ModelCard.load(path)
    assert len(card.data.eval_results) == 6
    assert "not stated" not in card.text
    assert not re.search(r"/(tmp|home|work|Users)/", str(card))
    assert "```bash\nhfrec " in card.text


def test_every_settings_file_has_its_card() -> None:
    """Whoever follows a recipe wants to know beforehand what comes out."""
    cards = "".join(path.read_text() for path in (ROOT / "model_cards").glob("ml-*.md"))
    recipes = sorted((ROOT / "scripts" / "configs").glob("*.yaml"))
    assert recipes
    assert not [path.name for path in recipes if f"hfrec pretrain scripts/configs/{path.name}\n" not in cards]


def test_a_model_worse_than_a_baseline_says_so(runs: Path, tmp_path: Path) -> None:
    """The reader sees the model's row; its author must not leave out the one above."""
    folder = shutil.copytree(runs / "tuned", tmp_path / "tuned")
    results = results_of(folder)
    results["test"]["baselines"]["item_knn"][results["test"]["decided_by"]]["ndcg@10"] = 1.0
    results["test"]["skipped_baselines"] = {"ease": "too many items."}
    (folder / "all_results.json").write_text(json.dumps(results))
    card = write_model_card(folder).read_text()
    assert "does not beat item_knn (ndcg@10 1.0000)" in card
    assert "- It is not compared with ease: too many items." in card
    settings = ", ".join(
        f"{name} {value:g}" for name, value in results["test"]["baselines"]["ease"]["settings"].items()
    )
    assert f"ease: {settings}" in card


def test_a_card_holds_no_html_of_others(runs: Path, tmp_path: Path) -> None:
    """The name of a file or a folder that is a script would run wherever the card is shown."""
    folder = tmp_path / "<script>alert(1)<"
    shutil.copytree(next(path.parent for path in sorted(runs.rglob("all_results.json"))), folder)
    results = json.loads((folder / "all_results.json").read_text())
    results["data"]["source"] = "<script>alert(2)</script>"
    (folder / "all_results.json").write_text(json.dumps(results))
    write_model_card(folder)
    body = (folder / "README.md").read_text().split("---\n", 2)[2]
    assert "<script" not in body and "&lt;script>alert(1)" in body and "&lt;script>alert(2)" in body
