"""Hashed names must mean the same on every machine and in every catalogue, for checkpoints are carried between them."""

from __future__ import annotations

import torch

from hfrec.transfer.hashing import hashed_rows


def test_places_are_those_of_every_other_machine() -> None:
    """A checkpoint's words would change their meaning with Python's own hash, which differs from run to run."""
    row = hashed_rows([["tea"]], width=16)[0]
    found = {place: round(float(row[place]), 3) for place in row.nonzero().flatten().tolist()}
    assert found == {0: 0.5, 4: 0.5, 10: -0.5, 14: 0.5}


def test_the_cosine_is_about_the_share_in_common() -> None:
    """Names that meet by chance must not look alike, or a rare brand would be lost."""
    names = [[f"a{row}", f"b{row}", "both"] for row in range(300)]
    cosines = hashed_rows(names) @ hashed_rows(names).T
    others = cosines[~torch.eye(300, dtype=torch.bool)]
    assert abs(float(others.mean()) - 1 / 3) < 0.02 and float(others.std()) < 0.1
