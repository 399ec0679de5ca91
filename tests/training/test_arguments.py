"""Defaults that depend on other arguments, and fields that are those of the config."""

from dataclasses import fields
from typing import get_args, get_type_hints

import pytest

from hfrec import Bert4RecConfig
from hfrec.training.arguments import ModelArguments
from hfrec.training.trainer import build_model


@pytest.mark.parametrize(
    ("objective", "asked", "found"),
    [("masked", None, True), ("causal", None, False), ("masked", False, False), ("causal", True, True)],
)
def test_causal_models_score_without_a_transform_unless_asked(objective: str, asked: bool | None, found: bool) -> None:
    """With the transform a causal model learns much more slowly."""
    arguments = ModelArguments(objective=objective, head_transform=asked)  # type: ignore[arg-type]
    assert build_model(arguments, 10, 5).config.head_transform is found


def test_flags_of_the_shape_are_the_fields_of_the_config() -> None:
    """The command line is written apart, as reading it must not import transformers: a value that one of the two does
    not know, or another default, gives two models for one set of words."""
    own, config = get_type_hints(ModelArguments), Bert4RecConfig.__annotations__
    defaults = {place.name: place.default for place in fields(Bert4RecConfig)}
    chosen_otherwise = {
        "loss": ("chunked", "full"),  # the same loss in less memory; `full` gives the logits that a script may want
        "head_transform": (None, True),  # the command follows the objective
    }
    names = set(ModelArguments().shape())
    assert names <= set(defaults) and len(names) > 20
    for place in fields(ModelArguments):
        if place.name not in names:
            continue
        if place.name in chosen_otherwise:
            assert (place.default, defaults[place.name]) == chosen_otherwise[place.name]
        else:
            assert place.default == defaults[place.name], place.name
        if place.name != "head_transform":
            assert own[place.name] == config[place.name], place.name
            assert get_args(own[place.name]) == get_args(config[place.name]), place.name
