"""What the client process of the hub tests runs: functions called by name, one line of JSON in, one out.

huggingface_hub copies its settings on import, so the client lives in a process of its own that gets them first.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any


def push(folder: str, repo_id: str, **kwargs: Any) -> dict[str, Any]:
    import hfrec

    commit = hfrec.push_to_hub(folder, repo_id, **kwargs)
    return {"oid": commit.oid, "url": commit.commit_url, "pull_request": commit.pr_url}


def push_model(folder: str, repo_id: str, *, with_tokenizer: bool = True, stock: bool = False) -> str:
    """Push model objects, by hfrec or by the stock method of transformers."""
    import hfrec

    model, tokenizer = hfrec.load_checkpoint(folder)
    if stock:
        return str(model.push_to_hub(repo_id).oid)
    return str(hfrec.push_to_hub(model, repo_id, tokenizer=tokenizer if with_tokenizer else None).oid)


def tag(repo_id: str, name: str, revision: str | None = None) -> None:
    from huggingface_hub import HfApi

    HfApi().create_tag(repo_id, tag=name, revision=revision)


def pull(repo_id: str, **kwargs: Any) -> str:
    import hfrec

    return str(hfrec.pull_from_hub(repo_id, **kwargs))


def recommendations(name: str, history: list[str], **kwargs: Any) -> list[list[Any]]:
    """Items and scores by `load_checkpoint` from a folder or the hub."""
    import hfrec

    model, tokenizer = hfrec.load_checkpoint(name, **kwargs)
    found = hfrec.recommend(model, tokenizer, [history], top_k=5)[0]
    return [[item["item_id"], item["score"]] for item in found]


def pipeline_recommendations(name: str, history: list[str], **kwargs: Any) -> list[list[Any]]:
    from transformers import pipeline

    import hfrec  # noqa: F401  # registers the task

    recommender = pipeline("recommendation", model=name, device=-1, **kwargs)
    return [[item["item_id"], item["score"]] for item in recommender(history, top_k=5)]


def command(*words: str) -> int:
    from hfrec_command import main

    return main(list(words))


def load_error(name: str, **kwargs: Any) -> str:
    """Message of the refusal to load; loading is an error."""
    import hfrec

    try:
        hfrec.load_checkpoint(name, **kwargs)
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    raise RuntimeError(f"{name} was loaded")


def load_directly(name: str) -> None:
    """Load weights by the class's own method."""
    import hfrec

    hfrec.Bert4RecForMaskedLM.from_pretrained(name)


def reference_fingerprint(name: str, revision: str | None = None) -> str:
    """What L2-SP anchors at."""
    import hfrec

    return hfrec.L2SPCallback(name, alpha=0.1, revision=revision).reference_fingerprint


def interactions(name: str) -> dict[str, Any]:
    """A log of the hub: its size and fingerprint."""
    import hfrec

    log = hfrec.load_interactions(name)
    return {"rows": len(log), "fingerprint": log.fingerprint}


def streamed_interactions(name: str, revision: str) -> list[list[Any]]:
    """Rows of a log of the hub, read piece by piece."""
    import hfrec

    parts = hfrec.load_interactions(name, revision=revision, streaming=True)
    return [list(row.values()) for part in parts for row in part.to_pylist()]


def environment(**names: str) -> None:
    """Change variables that the client reads at every request, such as HF_TOKEN."""
    os.environ.update(names)


def _serve(programs: dict[str, Callable[..., Any]], answers: Any) -> None:
    for line in sys.stdin:
        request = json.loads(line)
        try:
            result = {"result": programs[request["name"]](*request["args"], **request["kwargs"])}
        except Exception as error:
            print(traceback.format_exc(), file=sys.stderr)
            result = {"error": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}
        sys.stdout.flush()
        sys.stderr.flush()
        answers.write(json.dumps(result) + "\n")
        answers.flush()


if __name__ == "__main__":
    # What programs print must not mix with the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    _serve({name: value for name, value in globals().items() if callable(value) and not name.startswith("_")}, channel)
