"""What a run ends with, whatever trained it: its card, its table, where it lies, and the push."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..evaluation.sources import sources_table
from ..evaluation.table import results_table
from ..training.arguments import CardArguments
from ..training.final import final_text
from ..training.trainer_arguments import RecommenderTrainingArguments


def finish_card(training: RecommenderTrainingArguments, card: CardArguments) -> None:
    """Write the card of a run that was killed between its results and its card."""
    from ..hub.model_card import write_model_card

    folder = Path(training.output_dir)
    if (folder / "all_results.json").is_file() and not (folder / "README.md").exists():
        write_model_card(folder, repo_id=training.hub_model_id, license=card.license)
        print(f"The run was finished but for its card, which is written now: {folder / 'README.md'}", file=sys.stderr)


def report(
    results: dict[str, Any],
    training: RecommenderTrainingArguments,
    card: CardArguments,
    repo_id: str | None = None,
) -> None:
    """Write the card of a run, print the test table and where the checkpoint lies, and push it.

    Raises:
        HubError: The push failed; the checkpoint and its results are written.
    """
    from ..hub.model_card import write_model_card

    if training.process_index != 0:
        return
    write_model_card(training.output_dir, repo_id=training.hub_model_id, license=card.license)
    if "test" in results:
        print(results_table(results["test"]))
        if "sources" in results["test"]:
            print(sources_table(results["test"]))
        print(results["what_more_would_bring"])
    print(f"Checkpoint: {training.output_dir}")
    push_run(training, repo_id)
    print(results["test"]["verdict"]["text"] if "test" in results else final_text(results))


def push_run(training: RecommenderTrainingArguments, repo_id: str | None) -> None:
    """Push the checkpoint of a run, where it is asked for.

    Raises:
        HubError: The push failed; the checkpoint and its results are written.
    """
    from ..hub.push import push_to_hub

    if repo_id is not None:
        private, revision = training.hub_private_repo, training.hub_revision
        commit = push_to_hub(training.output_dir, repo_id, private=private, revision=revision)
        print(f"Pushed: {commit.commit_url}")
