"""The card of a classifier of users, from what its run measured."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.files import read_json_object, whole_file
from ..evaluation.table import cell, markdown_row
from .errors import redact

_METRICS = ("accuracy", "macro_f1")


def write_classifier_card(
    folder: str | os.PathLike[str], *, repo_id: str | None = None, license: str | None = None
) -> Path:
    """Write `README.md` into the folder of `hfrec finetune --task classification`.

    Args:
        folder: The checkpoint, with `config.json`, `items.parquet` and `all_results.json`.
        repo_id: Where it will be pushed; left out, `push_to_hub` fills it in.
        license: Licence of the weights.
    """
    from huggingface_hub import ModelCardData

    from .model_card import PLACEHOLDER, first_items, without_html

    folder = Path(folder)
    results = read_json_object(folder / "all_results.json")
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=["hfrec", "user-classification", "bert4rec"],
        license=license,
        metrics=list(_METRICS),
        model_name=repo_id or folder.resolve().name,
    )
    name, start = repo_id or PLACEHOLDER, Path(results["finetuning"]["model_name_or_path"]).name
    longest = read_json_object(folder / "config.json")["max_position_embeddings"]
    label, *names = without_html([results["task"]["label"], *results["task"]["classes"]])
    classes = ", ".join(f"`{text}`" for text in names)
    split, tested, seed = results["split"], results["test"]["n_users"], results["seed"]
    text = f"""---
{data.to_yaml()}
---

# {repo_id or folder.resolve().name}

A classifier of users: given the items that a user took, oldest first, it says `{label}`, one of
{classes}.

## Use

```python
import hfrec  # registers the model
from transformers import pipeline

classify = pipeline("text-classification", model="{name}")
print(classify({{"text": {json.dumps(first_items(folder), ensure_ascii=False)}, "is_split_into_words": True}}))
```

Without hfrec installed, `AutoModelForSequenceClassification` loads it with `trust_remote_code=True`. It reads the
newest {longest} items; longer histories are to be cut.

## Evaluation

{_table(results["test"])}

{tested:,} users who neither trained nor chose the epoch, drawn at random with seed {seed}; 95 % bootstrap intervals
over users. {split["num_train"]:,} users trained, {split["num_validation"]:,} chose the epoch. Started from `{start}`.

Whether a label of people may be guessed from what they took is a question of law and of consent, not of accuracy.
"""
    path = folder / "README.md"
    with whole_file(path) as draft:
        draft.write_text(redact(text), encoding="utf-8")
    return path


def _table(test: Mapping[str, Any]) -> str:
    lines = [markdown_row("", *_METRICS), markdown_row("---", *["---"] * len(_METRICS))]
    rows = {name: test[name] for name in ("model", "majority class")}
    return "\n".join(
        [*lines, *(markdown_row(name, *(cell(row, metric) for metric in _METRICS)) for name, row in rows.items())]
    )
