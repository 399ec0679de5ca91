"""What two other libraries say of random lists, written to lists_reference.json.

pip install rectools==0.19.0 inequality==1.1.2   (in an environment of its own: its pins are not ours)
python tests/evaluation/lists_reference.py tests/evaluation/lists_reference.json

Histories and lists are drawn as token ids from 3 on, as ours are; many lists share items, and some items nobody gets.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from inequality.gini import Gini
from rectools import Columns
from rectools.metrics import (
    MAP,
    MRR,
    AvgRecPopularity,
    CatalogCoverage,
    HitRate,
    MeanInvUserFreq,
    Precision,
    Recall,
)

NUM_USERS, NUM_ITEMS, TOP_K = 40, 30, 10


def rows(lists):
    frame = [(user, item, place) for user, items in enumerate(lists) for place, item in enumerate(items, start=1)]
    return pd.DataFrame(frame, columns=[Columns.User, Columns.Item, Columns.Rank])


def case(seed):
    rng = np.random.default_rng(seed)
    tokens = np.arange(3, 3 + NUM_ITEMS)
    weights = rng.zipf(1.5, NUM_ITEMS).clip(max=50).astype(float)
    weights /= weights.sum()
    histories = [rng.choice(tokens, rng.integers(1, 12), replace=False, p=weights).tolist() for _ in range(NUM_USERS)]
    shown = weights[:24] / weights[:24].sum()
    lists = [rng.choice(tokens[:24], TOP_K, replace=False, p=shown).tolist() for _ in range(NUM_USERS)]
    targets = rng.choice(tokens, NUM_USERS, p=weights).tolist()
    reco, history = rows(lists), rows(histories)
    truth = pd.DataFrame({Columns.User: range(NUM_USERS), Columns.Item: targets})
    accuracy = {
        "hit_rate@5": HitRate(k=5),
        "precision@5": Precision(k=5),
        "recall@5": Recall(k=5),
        "map@5": MAP(k=5),
        "mrr@5": MRR(k=5),
    }
    popularity = AvgRecPopularity(k=TOP_K)
    counts = pd.Series(np.concatenate(lists)).value_counts().reindex(tokens, fill_value=0)
    return {
        "histories": histories,
        "lists": lists,
        "targets": targets,
        "accuracy": {name: metric.calc_per_user(reco, truth).tolist() for name, metric in accuracy.items()},
        "novelty": MeanInvUserFreq(k=TOP_K).calc_per_user(reco, history).tolist(),
        "popularity": popularity.calc_per_user(reco, history).tolist(),
        "consumed_popularity": AvgRecPopularity(k=12).calc_per_user(history, history).tolist(),
        "coverage": CatalogCoverage(k=TOP_K, normalize=True).calc(reco, tokens.tolist()),
        "gini": float(Gini(counts.to_numpy()).g),
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps([case(seed) for seed in range(3)]) + "\n", encoding="utf-8")
