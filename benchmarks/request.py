"""One request through `recommend` beside the same network, product and `topk` by hand.

OMP_NUM_THREADS=1 python benchmarks/request.py [--items 18000 --seconds 20]

A masked model of random weights, hidden size 64, 2 layers, histories of 49 items, top 10, seen items left out. Four
requests of each way in turn, in either order; CPU milliseconds of a request, and medians of the paired ratios. By hand
once with the collator and once on token ids that lie there as tensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, DataCollatorForNextItem, ItemTokenizer, recommend

LENGTH, HISTORIES, TOGETHER = 49, 64, 4
WARM = 10  # rounds that do not count


def ways_of(positions: str, num_items: int) -> dict[str, Callable[[int], object]]:
    """Each way to answer the request of a history, by its number."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    tokenizer = ItemTokenizer.from_items([str(item) for item in range(num_items)])
    config = Bert4RecConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=LENGTH + 1,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        position_embedding_type=positions,  # type: ignore[arg-type]
    )
    model = Bert4RecForMaskedLM(config).eval()
    raw = [[str(item) for item in draw.integers(0, num_items, LENGTH)] for _ in range(HISTORIES)]
    seen = [torch.tensor(tokenizer.encode_column(row).to_pylist()) for row in raw]
    asked = [torch.cat([row, torch.tensor([tokenizer.mask_token_id])])[None] for row in seen]
    arrays = [row.numpy() for row in seen]
    collator = DataCollatorForNextItem(tokenizer, "masked", max_length=LENGTH + 1)

    @torch.no_grad()
    def best(number: int, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        scores = model.score_items(model.encode_history(input_ids, attention_mask))
        scores[0, seen[number]] = -torch.inf
        return scores.topk(10).indices

    def collated(number: int) -> torch.Tensor:
        batch = collator([{"input_ids": arrays[number]}])
        return best(number, batch["input_ids"], batch["attention_mask"])

    return {
        "`recommend`": lambda number: recommend(model, tokenizer, [raw[number]]),
        "by hand, collator": collated,
        "by hand, tensors": lambda number: best(number, asked[number]),
    }


def measure(ways: dict[str, Callable[[int], object]], seconds: float) -> dict[str, np.ndarray]:
    """CPU milliseconds of a request by each way, round by round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or number < 2 * WARM:
        for name in list(ways)[:: -1 if number % 2 else 1]:
            start = time.process_time()
            for place in range(TOGETHER):
                ways[name]((number * TOGETHER + place) % HISTORIES)
            spent[name].append((time.process_time() - start) * 1e3 / TOGETHER)
        number += 1
    return {name: np.array(values[WARM:]) for name, values in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=18_000)
    parser.add_argument("--seconds", type=float, default=20.0, help="Of each kind of positions.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| positions | way | CPU ms | `recommend`, times that |\n|---|---|---|---|")
    for positions in ("rotary", "absolute"):
        spent = measure(ways_of(positions, options.items), options.seconds)
        for name, values in spent.items():
            ratio = np.median(spent["`recommend`"] / values)
            print(f"| {positions} | {name} | {np.median(values):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
