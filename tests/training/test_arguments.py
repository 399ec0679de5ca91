"""Defaults that hang on other arguments."""

import pytest

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
