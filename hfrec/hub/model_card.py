"""Model cards from what a run measured: a fact that is not in the folder is left out, never guessed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.catalogs import MOVIELENS_LICENCE
from ..data.files import read_json_object, whole_file
from ..evaluation.metrics.functions import METRIC
from ..evaluation.table import METRICS, SETTINGS, settings
from .card_evaluation import evaluation_facts
from .card_sources import card_of_sources
from .errors import redact

TEMPLATE = Path(__file__).with_name("card_template.md.jinja")
PLACEHOLDER = "path/to/checkpoint"  # `push_to_hub` puts the repository's name in its place
EVAL_RESULTS = ".eval_results/hfrec.yaml"
_OBJECTIVES = {
    "masked": ("masked items (BERT4Rec)", "AutoModelForMaskedLM"),
    "causal": ("next item everywhere (SASRec)", "AutoModelForCausalLM"),
    "blend": ("a weighted sum of the scores of its parts", "AutoModel"),
}


def write_model_card(
    folder: str | os.PathLike[str],
    *,
    repo_id: str | None = None,
    license: str | None = None,
    dataset_license: str | None = None,
    name: str | None = None,
) -> Path:
    """Write `README.md`, and `.eval_results/hfrec.yaml` for a data set of the hub, into a checkpoint folder.

    Everything comes from `config.json`, `items.parquet` and the `all_results.json` that `hfrec pretrain`,
    `finetune`, `baseline` and `blend` write.

    Args:
        folder: The checkpoint.
        repo_id: Where it will be pushed; left out, `push_to_hub` fills it in.
        license: Licence of the weights. It depends on yours and on the data's, so there is no default.
        dataset_license: Licence and source of the data; known for the named data sets.
        name: What the model is called where it has no `repo_id`; by its folder unless given.

    Returns:
        Path of the card.

    Raises:
        ValueError: The folder holds no results.
        FileNotFoundError: The folder is no checkpoint.

    Example:
        >>> write_model_card("outputs/run", license="apache-2.0")  # doctest: +SKIP
    """
    from huggingface_hub import ModelCard

    folder = Path(folder)
    config = read_json_object(folder / "config.json")
    results = _results(folder)
    items = first_items(folder)
    title = repo_id or name or folder.resolve().name
    values = {
        **_model_facts(config, results),
        **_data_facts(results, dataset_license),
        **card_of_sources(results, measured_run(results)),
        **evaluation_facts(measured_run(results), name="this model" if "test" in results else "the validation run"),
        **_final_facts(results),
        **_blend_facts(results),
        "model_name": title,
        "repo_id": repo_id or PLACEHOLDER,
        "num_parameters": _num_parameters(folder),
        "num_items": f"{config['vocab_size'] - config['num_special_tokens']:,}",
        "inputs": _inputs(config),
        **_content(config),
        "example_history": ", ".join(json.dumps(item, ensure_ascii=False) for item in items),
    }
    data = _metadata(config, results, title, license)
    in_code = ("example_history", "repo_id")  # blocks of which are shown as they are
    shown = {name: value if name in in_code else without_html(value) for name, value in values.items()}
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **shown)
    path = folder / "README.md"
    _write_eval_results(folder, results)
    with whole_file(path) as draft:  # last, as a folder with a card is finished
        draft.write_text(redact(str(card)), encoding="utf-8")
    return path


def without_html(value: Any) -> Any:
    """Text of others (file names, ids of data sets) without HTML: a page that shows the card would run it."""
    if isinstance(value, list):
        return [without_html(part) for part in value]
    return value.replace("<", "&lt;") if isinstance(value, str) else value


def _inputs(config: Mapping[str, Any]) -> str | None:
    """What the model reads beside the items, with the number of values of each column."""
    found = [
        f"{entry['name']} ({entry['size'] - 1:,} values)" if entry["kind"] == "column" else str(entry["name"])
        for entry in config.get("inputs") or []
    ]
    return ", ".join(found) or None


def _content(config: Mapping[str, Any]) -> dict[str, str]:
    """What the items are made of, by which another catalogue is known; nothing where they are ids."""
    blocks = (config.get("item_content") or {}).get("blocks", [])
    if not blocks:
        return {}
    made = [f"{block['kind']} of {block['column']}{_encoder(block)}" for block in blocks]
    columns = dict.fromkeys(block["column"] for block in blocks)
    return {"content": f"{config['item_representation']}: {'; '.join(made)}", "content_columns": ", ".join(columns)}


def _encoder(block: Mapping[str, Any]) -> str:
    """Which text encoder: of a folder its name and what tells its files apart."""
    encoder = block.get("encoder")
    if encoder is None:
        return ""
    name = encoder if _is_hub_id(encoder) else Path(encoder).name
    known = block.get("revision") or str(block.get("fingerprint"))[:16]
    return f" ({name}, {known}, {block.get('pooling')} pooling)"


def set_license(folder: str | os.PathLike[str], license: str) -> None:
    """Write the licence of the weights into the metadata of a card that is there, and leave the rest as it is.

    Args:
        folder: The checkpoint or adapter.
        license: Its name on the hub, such as "apache-2.0".

    Raises:
        ValueError: The folder has no card.

    Example:
        >>> set_license("outputs/run", "apache-2.0")  # doctest: +SKIP
    """
    from huggingface_hub.repocard import metadata_load, metadata_save

    card = Path(folder) / "README.md"
    if not card.is_file():
        raise ValueError(
            f"`license` is written into the card, and {folder} has no README.md: write one, or let "
            "`hfrec.write_model_card` do it."
        )
    metadata_save(card, {**(metadata_load(card) or {}), "license": license})


def measured_run(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """The results that hold the test: of a checkpoint that was trained on all rows, those of its validation run."""
    return results if "test" in results else results.get("validation_run", {})


def _final_facts(results: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint of `--final true` was trained on, and what it has in common with the one that was tested."""
    final = results.get("final")
    if final is None:
        return {}
    if "blend" in results:
        return {
            "final": "all rows, with the settings and weights that were chosen with items held out",
            "final_run": "chose the settings and weights: the same methods, each user's held-out items left out",
        }
    length = f"{final['epochs']:g} epochs ({final['steps']:,} steps)"
    return {
        "final": f"all rows, {length}: as long as a run of the same settings was trained, with items held out, until "
        f"its {final['metric']} on validation was best",
        "final_run": "chose how long to train: the same settings and start, each user's held-out items left out",
    }


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "all_results.json"
    results: dict[str, Any] = read_json_object(path) if path.exists() else {}
    if "test" not in measured_run(results):
        raise ValueError(
            f"{folder} has no test results in all_results.json: a card states what was measured. Expected a folder "
            "that `hfrec pretrain` or `hfrec finetune` wrote."
        )
    return results


def first_items(folder: Path) -> list[str]:
    """Three items for the example; training writes the most frequent first."""
    import pyarrow.parquet as pq

    ids: list[str] = pq.read_table(folder / "items.parquet", columns=["item_id"])["item_id"][:3].to_pylist()
    return ids


def _num_parameters(folder: Path) -> str:
    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118  # no mapping
                size = 1
                for length in weights.get_slice(name).get_shape():
                    size *= length
                total += size
    return f"{total:,}"


def _metadata(config: Mapping[str, Any], results: Mapping[str, Any], name: str, license: str | None) -> Any:
    """The YAML head: what the hub searches and shows."""
    from huggingface_hub import ModelCardData

    objective = _objective(config)
    start = results.get("finetuning", {}).get("model_name_or_path")
    dataset, _ = _hub_dataset(results)
    extra = {} if start is None or not _is_hub_id(start) else {"base_model": start, "base_model_relation": "finetune"}
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="recommendation",
        tags=["hfrec", "sequential-recommendation", "bert4rec", objective, *(["l2-sp"] if _l2sp(results) else [])],
        license=license,
        datasets=[dataset] if dataset else None,
        metrics=list(METRICS),
        model_name=name,
        eval_results=_eval_results(results) if "test" in results else None,
        **extra,
    )


def _objective(config: Mapping[str, Any]) -> str:
    if "Blend" in str(config.get("architectures")):
        return "blend"
    return "causal" if "ForCausalLM" in str(config.get("architectures")) else "masked"


def _is_hub_id(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _hub_dataset(results: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Data set of the hub and its revision, from `owner/name[@revision]`."""
    name, _, revision = (results.get("settings", {}).get("dataset") or "").partition("@")
    return (name, revision or None) if _is_hub_id(name) else (None, None)


def _dataset_name(results: Mapping[str, Any]) -> str:
    """A name of the hub or of hfrec as it is; of a file its name, as the rest of the path is of one machine."""
    source = str(results.get("data", {}).get("source", "unknown"))
    return source if _is_hub_id(source) else Path(source).name


def _eval_results(results: Mapping[str, Any]) -> list[Any]:
    from huggingface_hub import EvalResult

    name = _dataset_name(results)
    found = []
    for setting in settings(results["test"]):
        for metric in METRICS:
            low, high = results["test"][setting][f"{metric}_ci"]
            found.append(
                EvalResult(
                    task_type="recommendation",
                    task_name="Sequential recommendation",
                    dataset_type=name,
                    dataset_name=name,
                    dataset_split="test",
                    dataset_config=_strategy(results),
                    metric_type=metric,
                    metric_name=f"{metric}, {SETTINGS[setting]}",
                    metric_value=results["test"][setting][metric],
                    metric_args={"filter_seen": setting == "filter_seen", "ci95": [low, high]},
                )
            )
    return found


def _strategy(results: Mapping[str, Any]) -> str:
    """Name of the split; prepared sequences are divided by leave-one-out and do not say so."""
    return str(results.get("split", {}).get("strategy", "leave_one_out"))


def _write_eval_results(folder: Path, results: Mapping[str, Any]) -> None:
    """The `.eval_results` of huggingface_hub 2.x name a data set of the hub; for others there is none to name."""
    import yaml

    dataset, revision = _hub_dataset(results)
    if dataset is None or "test" not in results:
        return
    setting = settings(results["test"])[0]
    strategy = _strategy(results)
    note = f"{strategy.replace('_', '-')}, whole catalogue, {SETTINGS[setting]}, ties never help the model"
    about = {"id": dataset, "task_id": strategy, **({"revision": revision} if revision else {})}
    entries = [{"dataset": about, "value": results["test"][setting][METRIC], "notes": f"{METRIC}; {note}"}]
    (folder / EVAL_RESULTS).parent.mkdir(exist_ok=True)
    with whole_file(folder / EVAL_RESULTS) as draft:
        draft.write_text(yaml.safe_dump(entries, sort_keys=False), encoding="utf-8")


def _model_facts(config: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    start = results.get("finetuning", {})
    versions = results.get("versions", {})
    parameters = results.get("hyperparameters", {})
    base = start.get("model_name_or_path")
    if base is not None:
        base = base if _is_hub_id(base) else Path(base).name
        base += f", revision {start['model_revision']}" if start.get("model_revision") else ""
    return {
        "objective": _OBJECTIVES[_objective(config)][0],
        "auto_class": _OBJECTIVES[_objective(config)][1],
        "max_length": config["max_position_embeddings"],
        "base_model": base,
        "l2sp": _l2sp(results),
        "l2sp_distance": _distances(results),
        "hyperparameters": ", ".join(f"{name} {value}" for name, value in parameters.items()),
        "versions": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "seed": str(results["seed"]) if "seed" in results else None,  # to the template, 0 is nothing
    }


def _blend_facts(results: Mapping[str, Any]) -> dict[str, Any]:
    """Parts, weights and cost of a blend; nothing for other models."""
    blend = results.get("blend")
    if blend is None:
        return {}
    settings = {part["name"]: part["settings"] for part in blend["components"]}
    facts = {
        "summary": "A blend for sequential recommendation: given the items that a user took, oldest first, it ranks "
        "every item of its catalogue as the next one.",
        "components": " + ".join(f"{part['weight']:.3g} × {part['name']}" for part in blend["components"]),
        "request_cost": f"{blend['request']['milliseconds']:.1f} ms on one thread where it was fitted, "
        f"{blend['request']['megabytes']:.1f} MB in memory",
        "hyperparameters": "; ".join(
            f"{name}: {', '.join(f'{key} {value:g}' for key, value in chosen.items())}"
            for name, chosen in settings.items()
            if chosen
        ),
        "base_model": "its parts, fitted and trained one by one",
    }
    if "fit" in blend:
        fit = blend["fit"]
        facts["blend_fit"] = (
            f"fitted on {fit['num_users']:,} validation users; on those held out, NDCG@20 of the blend less that of "
            f"{fit['best_part']} alone is {fit['difference']:+.4f} ± {fit['standard_error']:.4f}"
            + ("" if fit["mixes"] else ", which is not worth mixing")
        )
    return facts


def _l2sp(results: Mapping[str, Any]) -> str | None:
    start = results.get("finetuning", {})
    if not (start.get("l2sp_alpha") or start.get("l2sp_beta")):
        return None
    return f"{start.get('l2sp_mode', 'coupled')}, α = {start['l2sp_alpha']}, β = {start.get('l2sp_beta', 0.0)}"


def _distances(results: Mapping[str, Any]) -> str | None:
    kept = results.get("l2sp") or {}
    blocks = {name.partition("/")[2]: value for name, value in kept.items() if name.startswith("l2sp_distance/")}
    return ", ".join(f"{block} {value:.4g}" for block, value in blocks.items()) or None


def _data_facts(results: Mapping[str, Any], dataset_license: str | None) -> dict[str, Any]:
    sizes, settings = results.get("sizes", {}), results.get("settings", {})
    log = sizes.get("log", {})
    named = results.get("data", {}).get("source") in ("ml-100k", "ml-1m")
    facts = {
        "dataset_name": _dataset_name(results),
        "dataset_license": dataset_license or (MOVIELENS_LICENCE if named else None),
        "data_fingerprint": results.get("data", {}).get("train_fingerprint"),
    }
    if sizes:
        part = ", all that the log has" if "final" in results else " in the training part"
        facts["dataset_size"] = (
            f"{sizes['users']:,} users, {sizes['items']:,} items, {sizes['interactions']:,} interactions{part}"
        )
    if settings:
        facts["dataset_filters"] = (
            f"at least {settings['min_user_interactions']} interactions of a user and "
            f"{settings['min_item_interactions']} of an item; duplicates: {settings['duplicates']}"
        )
    if log:
        facts["dataset_dropped"] = (
            f"{log['duplicates_dropped']:,} duplicates, {log['core_rows_dropped']:,} interactions by the minimum "
            f"counts ({log['core_users_dropped']:,} users, {log['core_items_dropped']:,} items)"
        )
    return facts
