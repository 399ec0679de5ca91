"""Draw the validation curves of an ablation: where training starts, and where it ends.

python benchmarks/quality/plot_start.py benchmarks/quality/results/ablation-ml-100k.jsonl docs/plots/start.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SHOWN = {
    "random": ("from random weights", "#888888"),
    "svd": ("items and biases from the log", "#c98b2b"),
    "svd + layers": ("and layers that pass on", "#3b7dbb"),
    "svd + layers + nearest (default)": ("and attention at the nearest (default)", "#b03060"),
}


def main(results: str, image: str) -> None:
    """Write the picture: one panel an objective, the mean over seeds and their range."""
    lines = [json.loads(line) for line in Path(results).read_text().splitlines()]
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for panel, objective in zip(panels, ("causal", "masked"), strict=True):
        for variant, (label, colour) in SHOWN.items():
            found = [line["curve"] for line in lines if (line["objective"], line["variant"]) == (objective, variant)]
            curves = np.array(found)
            epochs = np.arange(1, curves.shape[1] + 1)
            panel.plot(epochs, curves.mean(axis=0), color=colour, label=label)
            panel.fill_between(epochs, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.15, linewidth=0)
        panel.set_title(f"{objective} objective")
        panel.set_xlabel("epoch")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation NDCG@10")
    panels[0].set_ylim(bottom=0)
    panels[0].legend(frameon=False, fontsize=8, loc="lower right")
    figure.suptitle("MovieLens-100K, mean and range of three seeds", fontsize=10)
    figure.tight_layout()
    figure.savefig(image, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
