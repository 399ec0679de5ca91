"""AdamW over only those rows of the item table that a batch touched: a step that does not grow with the catalogue."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..models.loss_names import SAMPLED_LOSSES
from ..transfer.optimizers import trainer_groups
from .trainer_arguments import RecommenderTrainingArguments


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter, ICLR 2019), lazy where a gradient is sparse.

    Of a weight with a sparse gradient, only the rows in it are updated: their moments and their decay stand still
    between two batches that hold them, as in `torch.optim.SparseAdam`. Everything else is AdamW. Gradients are clipped
    here, as torch clips no sparse ones.

    Args:
        params: As AdamW takes them.
        max_grad_norm: Longest gradient of all weights together; 0 clips nothing.
        kwargs: Of AdamW.

    Example:
        >>> weight = torch.nn.Parameter(torch.zeros(3, 1))
        >>> optimizer = RowwiseAdamW([weight], lr=0.5)
        >>> torch.nn.functional.embedding(torch.tensor([1]), weight, sparse=True).sum().backward()
        >>> optimizer.step()
        >>> [round(value, 3) for value in weight.flatten().tolist()]
        [0.0, -0.5, 0.0]
    """

    def __init__(self, params: Iterable[Any], *, max_grad_norm: float = 0.0, **kwargs: Any) -> None:
        super().__init__(params, **kwargs)
        self.max_grad_norm = max_grad_norm
        self._held: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            for weight in group["params"]:
                # Away from `weight.grad`, where the Trainer takes a norm that torch has for dense gradients only.
                weight.register_post_accumulate_grad_hook(self._hold)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients."""
        super().zero_grad(set_to_none)
        self._held.clear()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns what the closure returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        rows = {weight: gradient.coalesce() for weight, gradient in self._held.items()}
        self._held.clear()
        self._clip(rows)
        super().step()
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight in rows):
                self._update_rows(group, weight, rows[weight])
        return loss

    def _hold(self, weight: Tensor) -> None:
        if weight.grad is not None and weight.grad.is_sparse:
            self._held[weight] = self._held[weight] + weight.grad if weight in self._held else weight.grad
            weight.grad = None

    def _clip(self, rows: dict[Tensor, Tensor]) -> None:
        if not self.max_grad_norm:
            return
        weights = [weight for group in self.param_groups for weight in group["params"]]
        values = [weight.grad for weight in weights if weight.grad is not None]
        values += [gradient._values() for gradient in rows.values()]
        total = torch.stack([value.norm() for value in values]).norm()
        factor = (self.max_grad_norm / (total + 1e-6)).clamp(max=1.0)
        for value in values:
            value.mul_(factor)

    def _update_rows(self, group: dict[str, Any], weight: Tensor, gradient: Tensor) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
        state["step"] += 1
        step, (beta1, beta2), rate = float(state["step"]), group["betas"], float(group["lr"])
        index, values = gradient._indices()[0], gradient._values()  # (num_rows,), (num_rows, …)
        first = state["exp_avg"][index].lerp_(values, 1 - beta1)
        second = state["exp_avg_sq"][index].mul_(beta2).addcmul_(values, values, value=1 - beta2)
        state["exp_avg"][index], state["exp_avg_sq"][index] = first, second
        spread = second.sqrt_().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        row = weight[index].mul_(1 - rate * group["weight_decay"])
        weight[index] = row.addcdiv_(first, spread, value=-rate / (1 - beta1**step))


def rowwise_optimizer(model: PreTrainedModel, training: RecommenderTrainingArguments) -> RowwiseAdamW:
    """The optimiser of `--rowwise_embeddings`; the model's item table gives sparse gradients from here on.

    Where items are made of content, the table holds their residuals; the adapters are small and have dense gradients.

    Args:
        model: Masked or causal model with a sampled loss.
        training: Rates, decay and clipping; the clipping is taken over and switched off there.

    Raises:
        ValueError: A loss that touches every row, or several processes.
    """
    if training.label_smoothing_factor:
        raise ValueError("`rowwise_embeddings` goes without `label_smoothing_factor`, whose gradient has every row.")
    if model.config.loss not in SAMPLED_LOSSES:
        raise ValueError(
            f"`rowwise_embeddings` needs `--loss sampled_softmax` or `gbce`, found {model.config.loss!r}, whose "
            "gradient has every row."
        )
    if training.world_size > 1:
        raise ValueError(f"`rowwise_embeddings` is for one process, found {training.world_size}.")
    embeddings: Any = model.get_input_embeddings()
    embeddings.sparse = True
    clip, training.max_grad_norm = training.max_grad_norm, 0.0
    return RowwiseAdamW(
        trainer_groups(model, training.weight_decay),
        max_grad_norm=clip,
        lr=training.learning_rate,
        betas=(training.adam_beta1, training.adam_beta2),
        eps=training.adam_epsilon,
    )
