"""Words and categories as vectors that mean the same in any catalogue, without a list of what there is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import torch
from torch import Tensor
from torch.nn import functional as F

HASHED_WIDTH = 128
PLACES_OF_A_NAME = 4  # with one alone, two names that meet in it could not be told apart
WORD = re.compile(r"[^\W_]+")


def words_of(text: str | None) -> list[str]:
    """The words of a text, in lower case, in any script.

    Example:
        >>> words_of("Star Wars: 3-in-1 Café"), words_of(None)
        (['star', 'wars', '3', 'in', '1', 'café'], [])
    """
    return WORD.findall((text or "").lower())


def hashed_rows(names: Sequence[Iterable[str]], width: int = HASHED_WIDTH) -> Tensor:
    """Unit vectors of sets of names: each name has four places and signs of its own, given by its digest.

    The cosine of two rows is about the share of names that they have in common, whatever catalogue they come from.
    Names that are frequent count less once the rows are whitened.

    Args:
        names: Words or categories of each item; a name counts once.
        width: Columns.

    Returns:
        float32 `(len(names), width)`; a row of zeros where there is no name.

    Example:
        >>> rows = hashed_rows([["red", "tea"], ["tea", "red"], ["cup"], []])
        >>> bool(rows[0].equal(rows[1])), rows.norm(dim=1).round().tolist()
        (True, [1.0, 1.0, 1.0, 0.0])

    Reference:
        Weinberger et al., Feature hashing for large scale multitask learning, ICML 2009.
    """
    known: dict[str, list[tuple[int, float]]] = {}
    rows, columns, signs = [], [], []
    for row, found in enumerate(names):
        for name in sorted(set(found)):
            if name not in known:
                known[name] = _places(name, width)
            for column, sign in known[name]:
                rows.append(row)
                columns.append(column)
                signs.append(sign)
    table = torch.zeros(len(names), width)
    table.index_put_(
        (torch.tensor(rows, dtype=torch.long), torch.tensor(columns, dtype=torch.long)),
        torch.tensor(signs),
        accumulate=True,
    )
    return F.normalize(table, dim=1)


def _places(name: str, width: int) -> list[tuple[int, float]]:
    """Columns and signs of a name, the same on every machine: one in each part of the columns."""
    digest = blake2b(name.encode(), digest_size=4 * PLACES_OF_A_NAME).digest()
    numbers = [int.from_bytes(digest[start : start + 4], "big") for start in range(0, len(digest), 4)]
    size = width // PLACES_OF_A_NAME
    return [(part * size + (number >> 1) % size, 1.0 if number & 1 else -1.0) for part, number in enumerate(numbers)]
