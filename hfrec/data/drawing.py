"""How often the rows of several sources are drawn: by their number, or evened out with a temperature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

IntArray = npt.NDArray[np.int64]


def draws_of_sources(sizes: Sequence[int], temperature: float) -> list[int]:
    """Rows of each source in an epoch that has as many rows as all of them, shares by `size ** (1 / temperature)`.

    Args:
        sizes: Rows of each source.
        temperature: 1 draws each row once; larger values give small sources a larger share, infinity all the same.

    Raises:
        ValueError: A temperature that is not above 0.

    Example:
        >>> draws_of_sources([900, 100], 1.0), draws_of_sources([900, 100], 2.0)
        ([900, 100], [750, 250])
    """
    if not temperature > 0:
        raise ValueError(f"`--source_temperature` must be above 0, found {temperature}.")
    powers = np.power(np.asarray(sizes, dtype=np.float64) / max(sizes), 1.0 / temperature)
    exact = powers / powers.sum() * sum(sizes)
    draws = np.floor(exact).astype(np.int64)
    missing = int(sum(sizes) - draws.sum())
    draws[np.argsort(draws - exact, kind="stable")[:missing]] += 1  # the largest remainders first
    return [int(number) for number in draws]


def rows_of_pass(size: int, draws: int, *, source: int, seed: int, epoch: int) -> IntArray:
    """The rows of one source in an epoch `(draws,)`: a piece of an endless sequence of shuffled passes over them.

    So every row is drawn as often as any other one, to one, after any number of epochs.
    """
    start, stop = epoch * draws, (epoch + 1) * draws
    passes = range(start // size, -(-stop // size))
    orders = [np.random.default_rng([seed, source, number]).permutation(size) for number in passes]
    first = start - passes.start * size
    return np.concatenate([*orders, np.zeros(0, dtype=np.int64)])[first : first + draws].astype(np.int64)


class DrawnRows(torch.utils.data.Dataset[Any]):
    """Rows of several sources, one source after the other, and the sampler that draws them with a temperature.

    Args:
        rows: All rows.
        sizes: Rows of each source.
        temperature: As in [`draws_of_sources`].
        seed: Of the order.
    """

    def __init__(self, rows: Any, sizes: Sequence[int], *, temperature: float, seed: int) -> None:
        self.rows, self.sizes, self.seed = rows, list(sizes), seed
        self.draws = draws_of_sources(sizes, temperature)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]

    def __getitems__(self, indices: list[int]) -> Any:
        return self.rows.__getitems__(indices)

    def sampler(self) -> SourceSampler:
        """Draws the rows of an epoch."""
        return SourceSampler(self)


class SourceSampler(torch.utils.data.Sampler[int]):
    """The indices of an epoch, which depend on seed and epoch alone; `set_epoch` is called by the loader."""

    def __init__(self, rows: DrawnRows) -> None:
        self.rows, self.epoch = rows, 0

    def __len__(self) -> int:
        return sum(self.rows.draws)

    def set_epoch(self, epoch: int) -> None:
        """Go on to the order of another epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        rows, first, found = self.rows, 0, []
        for source, (size, draws) in enumerate(zip(rows.sizes, rows.draws, strict=True)):
            found.append(first + rows_of_pass(size, draws, source=source, seed=rows.seed, epoch=self.epoch))
            first += size
        indices = np.concatenate(found)
        yield from np.random.default_rng([rows.seed, self.epoch]).permutation(indices).tolist()
