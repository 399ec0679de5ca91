"""L2-SP: fine-tuning that is pulled back to the pretrained weights.

Xuhong Li, Yves Grandvalet, Franck Davoine: *Explicit Inductive Bias for Transfer Learning with Convolutional Networks*,
ICML 2018, equation 2: `L(w) + alpha/2 ‖w_S − w_S⁰‖² + beta/2 ‖w_new‖²`. `w_S` are the weights which the pretrained
model has too, `w_new` the others (a new head, the rows of new items).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from .anchors import Plan, Term, distances, listed, number, trainable
from .reference import HasVocabulary, as_vocabulary, read_reference


class L2SPCallback(TrainerCallback, ExportableState):
    """Adds the L2-SP penalty `alpha/2 ‖w_S − w_S⁰‖² + beta/2 ‖w_new‖²` to what a stock `Trainer` minimises.

    It acts in `on_pre_optimizer_step`: after gradient clipping, before `optimizer.step()`, once per optimiser step
    whatever the gradient accumulation. `w⁰` is read from `reference` in the constructor, never from the model in
    training, so that a resumed run is still anchored at the pretrained weights.

    `mode="coupled"` adds the exact gradient `alpha (w − w⁰)` to `w.grad`: the penalty goes through the optimiser's
    momentum and scaling like any loss. `mode="decoupled"` moves `w` by `−lr · alpha (w − w⁰)` around the optimiser, as
    AdamW's decay does, and like it leaves a weight without a gradient alone. Under Adam the two are different methods.

    The loss that `Trainer` reports does not hold the penalty: it is logged as `l2sp_penalty`, with the distance
    `‖w_S − w_S⁰‖` of each block as `l2sp_distance/<block>`. Reporters that stand before this callback have already
    written their line; `trainer.callback_handler.callbacks.insert(0, callback)` puts it in front of them.

    Args:
        reference (`str`, `Path`, `Mapping[str, Tensor]` or `nn.Module`):
            The pretrained checkpoint: folder or hub id with safetensors, or its weights. It is copied.
        alpha (`float`): Strength for weights that the reference has. The λ of `L + λ‖θ − θ0‖²` is alpha/2.
        beta (`float`, defaults to 0): Strength towards 0 for the weights that it has not.
        residual (`float`, defaults to 0): Strength for what an item has beside its content, in a model with
            `item_representation="content+id"`, in place of `alpha` and `beta`: towards what the reference has of the
            item, and towards 0 for a new one, which is drawn back to its content. Where the reference has none of the
            model's items, what is added to content (head, path past the body) is not pulled: it starts anew there.
        mode (`"coupled"` or `"decoupled"`): See above.
        tokenizer (tokenizer or `Mapping[str, int]`, *optional*):
            Of the model in training; left out, `Trainer`'s `processing_class`. Where the reference's is known too, the
            rows of the embedding table and of the head are matched by item id and not by position.
        reference_tokenizer (tokenizer or `Mapping[str, int]`, *optional*):
            Of the reference; left out, the `tokenizer.json` in its folder.
        include_bias_and_norm (`bool`, defaults to `True`):
            Whether vectors (biases, scales of norms) are part of the penalty. Li et al. leave them out.
        weight_decay (`"off"` or `"error"`):
            The optimiser's weight decay would pull the same weights towards 0. `"off"` leaves it out for every weight
            under the penalty, `"error"` refuses to train with both.
        revision (`str`, *optional*): Branch, tag or commit of a hub reference.

    Raises:
        ValueError: an argument is out of range; the reference does not fit the model; a run is resumed with other
            settings or another reference.
        FileNotFoundError: the reference has no safetensors weights.

    Example:
        >>> import torch
        >>> pretrained = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2)}
        >>> callback = L2SPCallback(pretrained, alpha=0.01)
        >>> callback.state()["args"]["mode"]
        'coupled'
    """

    def __init__(
        self,
        reference: str | Path | Mapping[str, Tensor] | nn.Module,
        *,
        alpha: float,
        beta: float = 0.0,
        residual: float = 0.0,
        mode: Literal["coupled", "decoupled"] = "coupled",
        tokenizer: HasVocabulary | Mapping[str, int] | None = None,
        reference_tokenizer: HasVocabulary | Mapping[str, int] | None = None,
        include_bias_and_norm: bool = True,
        weight_decay: Literal["off", "error"] = "off",
        revision: str | None = None,
    ) -> None:
        _check_settings(alpha=alpha, beta=beta, residual=residual, mode=mode, weight_decay=weight_decay)
        self.alpha, self.beta, self.residual, self.mode = float(alpha), float(beta), float(residual), mode
        self.tokenizer = tokenizer
        self.include_bias_and_norm, self.weight_decay, self.revision = include_bias_and_norm, weight_decay, revision
        self.reference = str(reference) if isinstance(reference, str | Path) else None
        self._reference = read_reference(reference, revision, reference_tokenizer)
        # Restoring callback states overwrites this attribute with the checkpoint's: `_check_resume` sees both.
        self.reference_fingerprint = self._reference.fingerprint
        self._terms: list[Term] = []
        self._trainable: frozenset[int] = frozenset()
        self._groups: list[dict[str, Any]] | None = None

    def state(self) -> dict[str, Any]:
        """Settings and fingerprint of the reference, as they go into `trainer_state.json`."""
        args = ("reference", "alpha", "beta", "residual", "mode", "include_bias_and_norm", "weight_decay", "revision")
        return {
            "args": {name: getattr(self, name) for name in args},
            "attributes": {"reference_fingerprint": self._reference.fingerprint},
        }

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Checks a resumed run, and matches the model with the reference."""
        if self.mode == "coupled" and args.fp16 and not args.max_grad_norm:
            raise ValueError(
                "`max_grad_norm`: expected a positive number with fp16 and L2-SP's `mode='coupled'`, found 0, which "
                "leaves the gradients scaled at the time of the pull. Set `max_grad_norm`, or train in bf16."
            )
        if state.global_step > 0:
            self._check_resume(state)
        self._restore_groups(kwargs["optimizer"])
        self._match(kwargs["model"], kwargs["optimizer"], kwargs.get("processing_class"))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Pulls once, and takes the weight decay off the pulled weights for the optimiser step that follows."""
        model, optimizer = kwargs["model"], kwargs["optimizer"]
        if self._trainable != trainable(model):  # gradual unfreezing
            self._match(model, optimizer, kwargs.get("processing_class"))
        if self._terms and all(term.parameter.grad is None for term in self._terms):
            raise ValueError(
                "L2-SP found no gradient on any weight before the optimiser step, so an engine (DeepSpeed?) keeps its "
                "own copy of them, which the pull would not reach. Use DDP or FSDP2."
            )
        self._pull(optimizer)
        self._restore_groups(optimizer)
        self._groups = optimizer.param_groups
        optimizer.param_groups = _without_decay(self._groups, {id(term.parameter) for term in self._terms})

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gives the optimiser its own parameter groups back, so that schedulers and checkpoints never see ours."""
        self._restore_groups(kwargs["optimizer"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Adds the penalty and the distances to the training log and to `state.log_history`."""
        if logs is None or "loss" not in logs:
            return
        measured = self.penalty()
        logs.update(measured)
        if state.log_history and state.log_history[-1].get("step") == state.global_step:
            state.log_history[-1].update(measured)

    @torch.no_grad()
    def penalty(self) -> dict[str, float]:
        """Penalty and distances at the model's present weights.

        Returns:
            `dict[str, float]`: `l2sp_penalty` = `alpha/2 ‖w_S − w_S⁰‖² + beta/2 ‖w_new‖²`, and for each block with
            anchored weights `l2sp_distance/<block>` = `‖w_S − w_S⁰‖`.
        """
        total = sum(number((term.offset().square() * term.strength).sum()) / 2 for term in self._terms)
        blocks = distances(self._terms).items()
        return {"l2sp_penalty": total, **{f"l2sp_distance/{block}": value for block, value in blocks}}

    @torch.no_grad()
    def _pull(self, optimizer: torch.optim.Optimizer) -> None:
        rates = {id(weight): float(group["lr"]) for group in optimizer.param_groups for weight in group["params"]}
        for term in self._terms:
            weight, gradient = term.parameter, term.parameter.grad
            if self.mode == "coupled":
                pull = (term.offset() * term.strength).to(weight.dtype)
                weight.grad = pull if gradient is None else gradient.add_(pull)
            elif gradient is not None:
                if id(weight) not in rates:
                    raise ValueError(
                        f"L2-SP: `{term.name}` is trainable, but not in the optimiser, so it has no learning rate for "
                        "`mode='decoupled'`. Give it to the optimiser or freeze it."
                    )
                step = term.offset() * term.strength * rates[id(weight)]
                weight.copy_(weight.to(step.dtype) - step)

    def _match(self, model: nn.Module, optimizer: torch.optim.Optimizer, processing_class: Any) -> None:
        """Builds the terms of the penalty for the weights which are trainable now."""
        current = as_vocabulary(self.tokenizer if self.tokenizer is not None else processing_class)
        strengths = {"alpha": self.alpha, "beta": self.beta, "residual": self.residual}
        plan = Plan(model, self._reference, current, **strengths)
        terms = plan.terms(include_vectors=self.include_bias_and_norm)
        if self.weight_decay == "error":
            _refuse_decay(optimizer, terms)
        self._terms, self._trainable = terms, trainable(model)

    def _restore_groups(self, optimizer: torch.optim.Optimizer) -> None:
        if self._groups is not None:
            optimizer.param_groups = self._groups
            self._groups = None

    def _check_resume(self, state: TrainerState) -> None:
        callbacks: Any = state.stateful_callbacks or {}  # a dict after loading, whatever its annotation says
        stored = callbacks.get(type(self).__name__)
        if stored is None:
            raise ValueError(
                "The checkpoint to resume from was trained without L2-SP, this run has it. Drop the callback, or start "
                "a new run from the checkpoint's weights instead of resuming."
            )
        entries = stored if isinstance(stored, list) else [stored]
        differences = [_differences(entry, self.state()) for entry in entries]
        if all(differences):
            raise ValueError(
                "L2-SP differs from that of the checkpoint to resume from: " + "; ".join(differences[0]) + ". "
                "Use the same settings and the same pretrained checkpoint, or start a new run."
            )


def _check_settings(*, alpha: float, beta: float, residual: float, mode: str, weight_decay: str) -> None:
    for name, value in (("alpha", alpha), ("beta", beta), ("residual", residual)):
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"`{name}`: expected a finite number of at least 0, found {value}.")
    if mode not in ("coupled", "decoupled"):
        raise ValueError(f"`mode`: expected 'coupled' or 'decoupled', found {mode!r}.")
    if weight_decay not in ("off", "error"):
        raise ValueError(f"`weight_decay`: expected 'off' or 'error', found {weight_decay!r}.")


def _without_decay(groups: list[dict[str, Any]], exempt: set[int]) -> list[dict[str, Any]]:
    """The parameter groups, in which the exempt parameters have a weight decay of 0."""
    result = []
    for group in groups:
        inside = [weight for weight in group["params"] if id(weight) in exempt]
        if not inside or not group.get("weight_decay"):
            result.append(group)
            continue
        outside = [weight for weight in group["params"] if id(weight) not in exempt]
        result.append({**group, "params": inside, "weight_decay": 0.0})
        if outside:
            result.append({**group, "params": outside})
    return result


def _refuse_decay(optimizer: torch.optim.Optimizer, terms: list[Term]) -> None:
    decayed = {id(p) for group in optimizer.param_groups if group.get("weight_decay") for p in group["params"]}
    names = [term.name for term in terms if id(term.parameter) in decayed]
    if names:
        raise ValueError(
            f"`weight_decay`: expected 0 on weights under L2-SP, found it on {listed(names)}. Set the optimiser's "
            "weight decay to 0, or pass `weight_decay='off'`."
        )


def _differences(stored: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    free = {"reference", "revision"}  # where the weights lie may change, the weights may not
    pairs = [(name, stored["args"].get(name), value) for name, value in present["args"].items() if name not in free]
    key = "reference_fingerprint"
    pairs.append((key, stored["attributes"].get(key), present["attributes"][key]))
    return [f"`{name}` was {before!r}, is {now!r}" for name, before, now in pairs if before != now]
