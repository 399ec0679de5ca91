"""Items held out of training: the split, the ways in which they start, and their ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from hfrec.data.interactions import Interactions, load_interactions
from hfrec.data.sequences import to_evaluation_sequences
from hfrec.evaluation.metrics.functions import paired_bootstrap, ranking_metrics
from hfrec.evaluation.protocol import evaluation_collator
from hfrec.evaluation.ranking import rank_dataset, target_ranks
from hfrec.tokenization import ItemTokenizer
from hfrec.transfer.content import Start, content_rows
from hfrec.transfer.features import feature_rows, rows_of
from hfrec.transfer.rows import ItemRows
from hfrec.transfer.vocabulary import add_items

Candidates = Literal["cold", "all"]
Ranks = NDArray[np.int64]
BATCH = 256


@dataclass(frozen=True)
class ColdSplit:
    """A log without the held-out items, and the interactions with them that are to be foreseen.

    Args:
        warm: What each user did with other items before his last held-out one; all of it where he has none.
        targets: The last held-out item of each user who did something before it.
        items: The held-out items that occur in the log.
    """

    warm: Interactions
    targets: Interactions
    items: list[str]


def hold_out_items(log: Interactions, *, fraction: float, seed: int) -> ColdSplit:
    """Hold a random share of the items out of training, and all that came after a user's last one of them.

    Args:
        log: Sorted interactions.
        fraction: Share of the items, in (0, 1).
        seed: Of the choice.

    Raises:
        ValueError: A share outside (0, 1), or one that leaves no target.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"`cold_fraction` must lie between 0 and 1, found {fraction}.")
    every = sorted(pc.unique(log.table["item_id"]).to_pylist())
    chosen = np.random.default_rng(seed).permutation(len(every))[: round(fraction * len(every))]
    cold = {every[index] for index in chosen}
    users, items = log.table["user_id"].to_pylist(), log.table["item_id"].to_pylist()
    last = {user: row for row, (user, item) in enumerate(zip(users, items, strict=True)) if item in cold}
    is_warm = [
        item not in cold and row < last.get(user, len(users))
        for row, (user, item) in enumerate(zip(users, items, strict=True))
    ]
    known_users = {user for user, keep in zip(users, is_warm, strict=True) if keep}
    rows = [row for user, row in last.items() if user in known_users]
    if not rows:
        raise ValueError(f"`cold_fraction` {fraction} leaves no user with a held-out item after others. Raise it.")
    warm = load_interactions(log.table.filter(pa.array(is_warm)), items=log.items)
    targets = load_interactions(log.table.take(sorted(rows)), items=log.items)
    # An item of which every warm interaction lies behind its users' targets has no history either.
    seen = set(pc.unique(warm.table["item_id"]).to_pylist())
    return ColdSplit(warm, targets, [item for item in every if item not in seen])


@dataclass(frozen=True)
class ColdItemsTest:
    """Ranks of held-out items under one trained model and one table of content.

    Args:
        model: The model, which was trained without the held-out items.
        tokenizer: Its tokenizer.
        split: The split it was trained on.
        warm_targets: Targets among the warm items by history: what is lost there.
    """

    model: PreTrainedModel
    tokenizer: ItemTokenizer
    split: ColdSplit
    warm_targets: tuple[Interactions, Interactions]

    def start(
        self,
        items: Sequence[str],
        features: Tensor | None,
        start: Start | Literal["features"],
        *,
        spread: float = 0.0,
        seed: int,
    ) -> dict[str, Ranks]:
        """Ranks when new items start from content; `features` None draws their rows at random.

        `start="features"` is for a model whose items are made of content.
        """
        rows: ItemRows | None = None
        if features is not None and start == "features":
            rows = feature_rows(self.model, rows_of(self.split.items, items, features))
        elif features is not None and start != "features":
            cold = self.split.items
            rows = content_rows(
                self.model, self.tokenizer, cold, items, features, start=start, spread=spread, seed=seed
            )
        model = deepcopy(self.model)
        tokenizer = add_items(
            model, self.tokenizer, self.split.items, rows=rows, generator=torch.Generator().manual_seed(seed)
        )
        collator = evaluation_collator(model, tokenizer)
        dataset = to_evaluation_sequences(self.split.warm, self.split.targets, tokenizer)
        warm = to_evaluation_sequences(*self.warm_targets, tokenizer)
        allowed = tokenizer.encode_column(self.split.items).to_pylist()
        return {
            "cold": rank_dataset(model, dataset, collator, allowed_items=allowed)["filter_seen"],
            "all": rank_dataset(model, dataset, collator)["filter_seen"],
            "warm targets": rank_dataset(model, warm, collator)["filter_seen"],
        }

    def popularity(self, seed: int) -> dict[str, Ranks]:
        """Ranks by training interactions, which are 0 for every held-out item; ties are broken at random."""
        counts = [*self.tokenizer.items["count"].to_pylist(), *[0] * len(self.split.items)]
        noise = torch.rand(len(counts), generator=torch.Generator().manual_seed(seed))
        scores = torch.tensor(counts, dtype=torch.float32) + noise
        return self._ranks(lambda history: scores.expand(len(history), -1))

    def content_neighbours(self, items: Sequence[str], features: Tensor) -> dict[str, Ranks]:
        """Ranks by the cosine between an item's content and the mean content of the history; no model at all."""
        wanted = [*self.tokenizer.items["item_id"].to_pylist(), *self.split.items]
        table = F.normalize(rows_of(wanted, items, features).float(), dim=1)  # (num_items, num_features)
        padded = torch.cat([table.new_zeros(1, table.shape[1]), table])

        def score(history: Tensor) -> Tensor:
            profile = F.embedding(history, padded).sum(dim=1)  # (batch, num_features)
            return profile @ table.T

        return self._ranks(score)

    def _ranks(self, score: Callable[[Tensor], Tensor]) -> dict[str, Ranks]:
        """Ranks by a function from histories (0 is padding, else item number + 1) to scores of all items."""
        tokenizer = ItemTokenizer.from_items([*self.tokenizer.items["item_id"].to_pylist(), *self.split.items])
        dataset = to_evaluation_sequences(self.split.warm, self.split.targets, tokenizer)
        allowed = torch.zeros(len(tokenizer), dtype=torch.bool)
        allowed[tokenizer.encode_column(self.split.items).to_pylist()] = True
        masks: dict[str, Tensor | None] = {"cold": allowed, "all": None}
        found: dict[str, list[Tensor]] = {name: [] for name in masks}
        for start in range(0, len(dataset), BATCH):
            rows = dataset[start : start + BATCH]
            histories = [torch.tensor(history) for history in rows["input_ids"]]
            seen = torch.nn.utils.rnn.pad_sequence(histories, batch_first=True)  # (batch, longest history)
            scores = F.pad(score((seen - 2).clamp(min=0)), (3, 0), value=float("-inf"))
            for name, mask in masks.items():
                ranks = target_ranks(scores, torch.tensor(rows["target"]), seen_ids=seen, allowed=mask)
                found[name].append(ranks)
        return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def summary(ranks: dict[str, dict[str, Ranks]], against: Sequence[str]) -> dict[str, Any]:
    """Metrics of every way to start, and paired differences in NDCG@10 on cold targets to those in `against`."""
    metrics = {
        name: {where: ranking_metrics(values, ks=(10,)) for where, values in parts.items()}
        for name, parts in ranks.items()
    }
    differences = {
        f"{name} - {other}": {
            where: paired_bootstrap(ranks[name][where], ranks[other][where]) for where in ("cold", "all")
        }
        for name in ranks
        for other in against
        if name not in against and other in ranks
    }
    return {"metrics": metrics, "differences in ndcg@10": differences}
