"""The space of a search lies around the recipe's choice, and a small log gets a small one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from optuna.trial import FixedTrial

from hfrec.commands.pretrain import parse
from hfrec.training.recipes import LogStatistics, choose_settings, recipe_defaults
from hfrec.training.space import Interval, SearchSpace, search_space, suggest

TINY = LogStatistics(np.full(60, 8), num_items=30)
FILMS = LogStatistics(np.full(943, 104), num_items=1_678)
SHOP = LogStatistics(np.full(22_000, 7), num_items=30_000)


def _own(log: LogStatistics, **given: Any) -> dict[str, Any]:
    defaults = {**recipe_defaults(choose_settings("balanced", log), given), **given}
    arguments = parse(["--dataset", "synthetic"], defaults=defaults)
    return {**vars(arguments.training), **vars(arguments.data), **vars(arguments.shape)}


def _holds(space: SearchSpace, name: str, value: Any) -> bool:
    bounds = space[name]
    return bounds.low <= value <= bounds.high if isinstance(bounds, Interval) else value in bounds


@pytest.mark.parametrize("log", [TINY, FILMS, SHOP])
@pytest.mark.parametrize("objective", ["masked", "causal"])
def test_the_recipes_own_settings_lie_inside(log: LogStatistics, objective: str) -> None:
    """The first trial is the recipe's own: outside the space, it would not be trained with its own values."""
    own = _own(log, objective=objective)
    space = search_space(own, log, {"objective"})
    assert all(_holds(space, name, own[name]) for name in space)
    assert {"mlm_probability", "mask_last_probability"} & set(space) == (
        {"mlm_probability", "mask_last_probability"} if objective == "masked" else set()
    )


def test_a_small_log_gets_a_small_space() -> None:
    """A wide space on few users finds what is best on their validation items by chance."""
    tiny, films, shop = (search_space(_own(log), log, ()) for log in (TINY, FILMS, SHOP))
    assert "max_length" not in tiny and "loss" not in tiny and tiny["hidden_size"] == (32, 64)
    assert films["max_length"] == (50, 100, 200) and films["hidden_size"] == (32, 64, 128)
    assert "chunked" in films["loss"] and "loss" not in shop  # type: ignore[operator]


def test_content_is_not_searched_with_a_loss_that_its_recipe_avoids() -> None:
    """On 12,000 items a step over content with the exact loss takes 4.5 times as long, and ranks worse."""
    log = LogStatistics(np.full(22_000, 7), num_items=12_000)
    ids, content = (
        search_space({**_own(log), "item_representation": items, "loss": "sampled_softmax"}, log, ())["loss"]
        for items in ("id", "content+id")
    )
    assert "chunked" in ids and "chunked" not in content  # type: ignore[operator]


def test_a_given_flag_is_not_searched() -> None:
    """A search that overrules a flag answers another question."""
    assert "hidden_dropout_prob" not in search_space(_own(FILMS), FILMS, {"hidden_dropout_prob"})


def test_only_settings_that_play_a_part_are_suggested() -> None:
    """Smoothing, which gbce refuses, would end the search; negatives of an exact loss are noise for the sampler."""
    space = search_space(_own(FILMS), FILMS, ())
    middle = {k: (v.low + v.high) / 2 if isinstance(v, Interval) else v[0] for k, v in space.items()}
    found = {
        loss: set(suggest(FixedTrial({**middle, "loss": loss}), space, "chunked"))
        for loss in ("chunked", "sampled_softmax", "gbce")
    }
    assert found["sampled_softmax"] == set(space)
    assert set(space) - found["chunked"] == {"num_negatives"}
    assert set(space) - found["gbce"] == {"label_smoothing_factor"}


def test_heads_divide_every_size() -> None:
    """A width that the heads do not divide is refused by the model in the middle of a search."""
    given = {"num_attention_heads": 64, "position_embedding_type": "absolute"}
    space = search_space(_own(FILMS, **given), FILMS, given)
    assert space["hidden_size"] == (64, 128)


def test_rotary_positions_get_sizes_that_pair_up() -> None:
    """A head of an odd width is refused by the model in the middle of a search."""
    given = {"num_attention_heads": 32, "position_embedding_type": "rotary"}
    assert search_space(_own(FILMS, **given), FILMS, given)["hidden_size"] == (64, 128)


@pytest.mark.parametrize("given", [{"label_smoothing_factor": 0.1}, {"negative_sampling": "log_uniform"}])
def test_gbce_is_not_searched_beside_a_flag_that_it_refuses(given: dict[str, Any]) -> None:
    """The model refuses the two together: the first trial that draws gbce would end the search."""
    losses = search_space(_own(FILMS, **given), FILMS, given)["loss"]
    assert losses == ("chunked", "sampled_softmax")
    assert search_space(_own(FILMS), FILMS, ())["loss"] == (*losses, "gbce")


def test_gbce_is_not_searched_where_the_recipe_looks_for_hard_negatives() -> None:
    """The recipe's choice stays in every trial, and the model refuses the two together."""
    own = _own(SHOP)
    assert own["num_hard_negatives"] == own["num_negatives"] == 512
    space = search_space(own, SHOP, ())
    assert "loss" not in space and space["num_negatives"] == (256, 512, 1024, 4096)
