"""Draw where fine-tuning ends with and without L2-SP, on two parameters: docs/plots/l2sp.png.

Linear regression of two weights. The checkpoint solves a source, the target is a shifted problem of which a few noisy
rows are seen. Each point is the minimum on one draw of such rows; the lines show the loss on all of the target.

python benchmarks/draw_l2sp.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
PATH = Path(__file__).parents[1] / "docs" / "plots" / "l2sp.png"
START, TRUTH = np.array([1.0, 1.0]), np.array([1.3, 0.75])  # best on the source, and on the target
MIXING = np.array([[1.0, 0.55], [0.55, 0.5]])  # the inputs go together, so few rows leave one direction open
DRAWS, ROWS, NOISE, STRENGTH = 200, 8, 0.5, 0.1
ARMS = (  # name, strength, what the weights are pulled to, color
    ("plain fine-tuning", 0.0, START, "#2f7fbf"),
    ("weight decay, to zero", STRENGTH, np.zeros(2), "#c98a1b"),
    ("L2-SP, to the checkpoint", STRENGTH, START, "#b5235f"),
)


def minimum(inputs: Array, labels: Array, strength: float, anchor: Array) -> Array:
    """The weights that minimise `mean squared error / 2 + strength / 2 ‖w − anchor‖²`."""
    curvature = inputs.T @ inputs / len(labels) + strength * np.eye(2)
    return np.linalg.solve(curvature, inputs.T @ labels / len(labels) + strength * anchor)


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(DRAWS, ROWS, 2)) @ MIXING
    labels = inputs @ TRUTH + generator.normal(scale=NOISE, size=(DRAWS, ROWS))
    covariance = MIXING.T @ MIXING
    drawn, panels = plt.subplots(1, 3, figsize=(11, 4), sharex=True, sharey=True)
    xs, ys = np.meshgrid(np.linspace(-0.4, 3.0, 120), np.linspace(-1.6, 2.6, 120))
    away = np.stack([xs - TRUTH[0], ys - TRUTH[1]], axis=-1)  # (120, 120, 2)
    loss = np.einsum("ijk,kl,ijl->ij", away, covariance, away)
    for axes, (name, strength, anchor, color) in zip(panels, ARMS, strict=True):
        ends = np.array([minimum(*rows, strength, anchor) for rows in zip(inputs, labels, strict=True)])  # (DRAWS, 2)
        mean = np.einsum("ik,kl,il->i", ends - TRUTH, covariance, ends - TRUTH).mean()
        axes.contour(xs, ys, np.sqrt(loss), levels=9, colors="#cccccc", linewidths=0.7)
        axes.scatter(*ends.T, s=9, color=color, alpha=0.6)
        axes.scatter(*START, marker="s", s=45, color="black", label="checkpoint")
        axes.scatter(*TRUTH, marker="*", s=150, color="black", label="best on the target")
        axes.set(xlim=(-0.4, 3.0), ylim=(-1.6, 2.6), xlabel="one weight")
        axes.set_title(f"{name}\nexcess loss {mean:.3f}", fontsize=11)
    panels[0].set_ylabel("another weight")
    panels[0].legend(frameon=False, loc="lower left", fontsize=9)
    drawn.savefig(PATH, dpi=110, bbox_inches="tight")


if __name__ == "__main__":
    main()
