"""Item-to-item weights as buffers of a model: item-kNN, EASE and Markov chains score alike."""

import math

import torch
from torch import nn

MAX_ENTRIES = 250_000  # neighbours summed at a time: their arrays stay in the cache, which halves the time
_RESOLUTION = torch.finfo(torch.float32).eps


class NeighbourTable(nn.Module):
    """Scores `score(u, j) = sum_i decay^age(u, i) * W[i, j]` over the history, the newest token having age 0.

    Rows are as long as an item has neighbours, one after the other, so that few long rows cost no padding. Tokens
    whose `decay^age` is below the resolution of float32 are left out of the sum.

    Args:
        vocab_size: Items and special tokens.
        num_neighbours: Entries of all rows together.
        longest_row: Entries of the longest row.
        decay: Weight of an item against the one after it, in [0, 1]; 0 reads the newest item alone.

    Example:
        >>> table = NeighbourTable(5, num_neighbours=2, longest_row=1, decay=0.5)
        >>> table.fill(torch.tensor([0, 0, 0, 0, 1, 2]), torch.tensor([4, 3]), torch.tensor([1.0, 2.0]))
        >>> table(torch.tensor([[0, 3, 4]]), torch.tensor([[False, True, True]])).tolist()
        [[0.0, 0.0, 0.0, 2.0, 0.5]]
    """

    offsets: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor

    def __init__(self, vocab_size: int, *, num_neighbours: int, longest_row: int, decay: float) -> None:
        super().__init__()
        self.longest_row = longest_row
        self.decay = decay
        self.register_buffer("offsets", torch.zeros(vocab_size + 1, dtype=torch.int64))
        self.register_buffer("ids", torch.zeros(num_neighbours, dtype=torch.int32))
        self.register_buffer("weights", torch.zeros(num_neighbours))

    @property
    def horizon(self) -> int | None:
        """Newest tokens that count; None for all."""
        if self.decay == 1.0:
            return None
        return 1 if self.decay == 0.0 else int(math.log(_RESOLUTION) / math.log(self.decay)) + 1

    def fill(self, offsets: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> None:
        """Take the rows of a fitted table.

        Args:
            offsets: Where the row of each token begins, `(vocab_size + 1,)`.
            ids: Neighbours of all rows `(num_neighbours,)`.
            weights: Their weights `(num_neighbours,)`.
        """
        self.offsets.copy_(offsets)
        self.ids.copy_(ids)
        self.weights.copy_(weights)
        self.check("table")

    def check(self, name: str) -> None:
        """Refuse rows that reach outside the table: a forged file would read foreign memory or ask for too much.

        Raises:
            ValueError: With the name of the component.
        """
        lengths = self.offsets.diff()
        fits = int(self.offsets[0]) == 0 and int(self.offsets[-1]) == len(self.ids) and int(lengths.min()) >= 0
        inside = int(self.ids.min()) >= 0 and int(self.ids.max()) < len(lengths)
        if not (fits and inside and int(lengths.max()) <= self.longest_row):
            raise ValueError(f"the neighbours of {name!r} do not fit their table: the checkpoint is damaged or forged.")

    def forward(self, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """Scores `(batch, vocab_size)`; memory is bounded by taking some users at a time.

        Args:
            tokens: Histories `(batch, length)`, the newest token last.
            real: False at padding `(batch, length)`.
        """
        length = tokens.shape[1]
        if self.horizon is not None:
            first = torch.sym_max(length - self.horizon, 0)
            tokens, real = tokens[:, first:], real[:, first:]
        ages = torch.arange(tokens.shape[1] - 1, -1, -1, device=tokens.device)
        ageing = torch.pow(self.decay, ages.double()).to(self.weights.dtype)  # (length,)
        if torch.compiler.is_compiling():
            return self._padded(tokens, real, ageing)
        rows = max(1, MAX_ENTRIES // max(1, tokens.shape[1] * self.longest_row))
        chunks = zip(tokens.split(rows), real.split(rows), strict=True)
        return torch.cat([self._ragged(*chunk, ageing) for chunk in chunks])

    def _ragged(self, tokens: torch.Tensor, real: torch.Tensor, ageing: torch.Tensor) -> torch.Tensor:
        """The sum over the neighbours that there are."""
        users, places = real.nonzero(as_tuple=True)  # (num_tokens,) each
        begin = self.offsets[tokens[users, places]]
        counts = self.offsets[tokens[users, places] + 1] - begin
        owner = torch.repeat_interleave(torch.arange(len(counts), device=tokens.device), counts)  # (num_entries,)
        entry = torch.arange(len(owner), device=tokens.device) + (begin - counts.cumsum(0) + counts)[owner]
        values = self.weights[entry] * ageing[places][owner]
        vocab_size = len(self.offsets) - 1
        scores = values.new_zeros(len(tokens) * vocab_size)
        scores.index_add_(0, (users * vocab_size)[owner] + self.ids[entry], values)
        return scores.view(len(tokens), vocab_size)

    def _padded(self, tokens: torch.Tensor, real: torch.Tensor, ageing: torch.Tensor) -> torch.Tensor:
        """The same sum for a graph, whose shapes must not depend on values: every row as long as the longest."""
        begin = self.offsets[tokens]  # (batch, length)
        counts = torch.where(real, self.offsets[tokens + 1] - begin, 0)
        steps = torch.arange(self.longest_row, device=tokens.device)
        inside = steps < counts[..., None]  # (batch, length, longest_row)
        entry = torch.where(inside, begin[..., None] + steps, 0)
        values = torch.where(inside, self.weights[entry] * ageing[:, None], 0.0)
        scores = values.new_zeros(tokens.shape[0], self.offsets.shape[0] - 1)
        return scores.scatter_add(1, self.ids[entry].long().flatten(1), values.flatten(1))
