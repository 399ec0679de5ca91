"""Recipes: settings follow the log's statistics, flags win, and a budget of the user stays whole."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hfrec import load_interactions
from hfrec.commands.new_models import statistics_of
from hfrec.commands.pretrain import parse
from hfrec.data.collators import Objective
from hfrec.training.arguments import DataArguments
from hfrec.training.recipes import BUDGET, LogStatistics, RecipeName, choose_settings, recipe_defaults
from hfrec.training.rows import build_tokenizer, training_sequences
from hfrec_command import main

FILMS = LogStatistics(np.full(943, 104), num_items=1_678)
SHOP = LogStatistics(np.full(22_000, 7), num_items=12_101)
MARKET = LogStatistics(np.full(22_000, 7), num_items=40_000)


def _values(log: LogStatistics, recipe: str = "balanced") -> dict[str, object]:
    return {choice.name: choice.value for choice in choose_settings(recipe, log)}  # type: ignore[arg-type]


def test_settings_follow_the_log() -> None:
    """Settings of a film log on a shop's baskets, or the other way round, are what every fixed default gets wrong."""
    films, shop = _values(FILMS), _values(SHOP)
    assert films["max_length"] == 100 and shop["max_length"] == 20
    assert float(str(films["hidden_dropout_prob"])) < float(str(shop["hidden_dropout_prob"]))


@pytest.mark.parametrize(
    ("recipe", "log", "items", "loss"),
    [
        ("fast", FILMS, "id", "chunked"),
        ("fast", SHOP, "id", "sampled_softmax"),
        ("balanced", SHOP, "id", "chunked"),
        ("best", SHOP, "id", "chunked"),
        ("balanced", SHOP, "content+id", "sampled_softmax"),
        ("balanced", FILMS, "content+id", "chunked"),
        ("best", MARKET, "id", "sampled_softmax"),
    ],
)
def test_the_exact_loss_is_taken_where_it_is_worth_its_time(
    recipe: RecipeName, log: LogStatistics, items: str, loss: str
) -> None:
    """Drawn negatives cost a shop of 12,000 items a twentieth of its NDCG, the exact loss a market hours."""
    found = {choice.name: choice.value for choice in choose_settings(recipe, log, {"item_representation": items})}
    assert found["loss"] == loss


@pytest.mark.parametrize(
    ("recipe", "num_items", "given", "hard"),
    [
        ("balanced", 12_101, {}, None),
        ("balanced", 40_000, {}, 512),
        ("best", 40_000, {"objective": "masked"}, 512),
        ("fast", 40_000, {}, None),
        ("balanced", 400_000, {}, None),
        ("balanced", 40_000, {"item_representation": "content"}, None),
        ("balanced", 40_000, {"loss": "gbce"}, None),  # which refuses them
    ],
)
def test_negatives_are_looked_for_where_drawing_alone_is_worse(
    recipe: RecipeName, num_items: int, given: dict[str, str], hard: int | None
) -> None:
    """Looking for them in a catalogue of millions would take most of a step; not every model takes them."""
    log = LogStatistics(SHOP.lengths, num_items=num_items)
    found = {choice.name: choice.value for choice in choose_settings(recipe, log, given)}
    assert found.get("num_hard_negatives") == found.get("num_negatives") == hard


@pytest.mark.parametrize("log", [FILMS, SHOP, LogStatistics(np.array([3, 3, 4]), num_items=5)])
def test_a_better_recipe_takes_more_steps_and_evaluates_as_often(log: LogStatistics) -> None:
    """`best` must not be cut short by a bound that was meant for `fast`, nor a tiny log get no step."""
    steps = [int(str(_values(log, name)["max_steps"])) for name in ("fast", "balanced", "best")]
    assert 0 < steps[0] < steps[1] < steps[2]
    for name, most in zip(("fast", "balanced", "best"), steps, strict=True):
        assert 10 <= most / int(str(_values(log, name)["eval_steps"])) <= 21


def test_a_masked_run_takes_what_masking_needs() -> None:
    """It learns from a part of the items in a step: with the steps of a causal run it would end too early."""
    masked = {choice.name: choice.value for choice in choose_settings("balanced", FILMS, {"objective": "masked"})}
    assert masked["max_steps"] == 2 * int(str(_values(FILMS)["max_steps"])) and "objective" not in masked
    assert masked["loss_candidates"] == _values(FILMS)["loss_candidates"] == "unseen"


@pytest.mark.parametrize(("log", "steps"), [(SHOP, 1031), (FILMS, 500)])
def test_content_is_learnt_in_few_and_careful_steps(log: LogStatistics, steps: int) -> None:
    """At the rate and length of a run by ids it is learnt by heart: the best model lies at the start of the run."""
    ids, content = (
        {choice.name: choice.value for choice in choose_settings("balanced", log, {"item_representation": asked})}
        for asked in ("id", "content")
    )
    assert content["max_steps"] == steps <= ids["max_steps"]
    assert content["learning_rate"] < ids["learning_rate"]


def test_every_choice_is_a_flag_and_has_a_reason() -> None:
    """A choice that no flag knows would be printed and never reach the run."""
    choices = choose_settings("best", FILMS)
    assert all(choice.reason for choice in choices)
    defaults = recipe_defaults(choices, set())
    arguments = parse(["--dataset", "synthetic", "--output_dir", "unused"], defaults=defaults)
    found = {**vars(arguments.data), **vars(arguments.shape), **vars(arguments.training)}
    assert {name: found[name] for name in defaults} == defaults


@pytest.mark.parametrize("objective", ["masked", "causal"])
@pytest.mark.parametrize("windows", ["newest", "overlapping"])
def test_the_printed_epochs_are_the_trainers(objective: Objective, windows: str) -> None:
    """One history of thousands makes more rows than an average says: 100 epochs were printed where 59 were run."""
    lengths = [*np.random.default_rng(0).integers(1, 40, size=60).tolist(), 180, 700]
    events = [(f"u{user}", f"i{step % 50}", step) for user, length in enumerate(lengths) for step in range(length)]
    users, items, times = zip(*events, strict=True)
    log = load_interactions(pa.table({"user_id": users, "item_id": items, "timestamp": times}))
    given = {"objective": objective, "windows": windows, "max_length": 21, "per_device_train_batch_size": 8}
    data = DataArguments(train_file="unused", windows=windows)  # type: ignore[arg-type]
    rows = training_sequences(log, build_tokenizer(log), objective, data, 21)
    reasons = {choice.name: choice for choice in choose_settings("fast", statistics_of(log), given)}
    assert reasons["per_device_train_batch_size"].reason == f"{len(rows):,} rows an epoch"
    epochs = reasons["max_steps"].value / -(-len(rows) // 8)
    assert reasons["max_steps"].reason == f"{epochs:.3g} epochs"


def test_flags_win_over_the_recipe() -> None:
    """A flag that is overruled in silence makes every ablation wrong."""
    defaults = recipe_defaults(choose_settings("balanced", FILMS), {"max_length", "loss"})
    assert not {"max_length", "loss"} & set(defaults) and "hidden_dropout_prob" in defaults


@pytest.mark.parametrize("given", ["num_train_epochs", "max_steps", "time_budget", "eval_strategy"])
def test_a_budget_of_the_user_stays_whole(given: str) -> None:
    """Epochs of the user with the steps of the recipe would train for the recipe's steps."""
    assert not set(BUDGET) & set(recipe_defaults(choose_settings("balanced", FILMS), {given}))


def test_a_run_says_what_the_recipe_chose_and_why(
    write_log: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was chosen stands on the screen and in the results, so that the run can be made again."""
    log = write_log("log.csv", num_users=40, num_items=20, min_length=5)
    words = ["pretrain", "--train_file", str(log), "--recipe", "fast", "--max_steps", "4", "--disable_tqdm", "true"]
    assert main([*words, "--hidden_size", "16", "--output_dir", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "all_results.json").read_text())
    chosen = results["recipe"]["settings"]
    assert results["recipe"]["name"] == "fast" and "hidden_size" not in chosen and chosen["max_length"] == 20
    assert "Recipe fast: 40 users" in shown and "--max_length 20" in shown
    assert results["settings"]["max_length"] == 20


def test_a_masking_probability_means_the_masked_objective() -> None:
    """The causal objective would ignore the flag in silence."""
    given = {"mlm_probability": 0.3}
    assert "objective" in recipe_defaults(choose_settings("balanced", FILMS), {})
    assert "objective" not in recipe_defaults(choose_settings("balanced", FILMS, given), given)
