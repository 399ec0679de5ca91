"""Which weight of a model L2-SP pulls where: matching with the pretrained weights by name, shape and item id."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import logging

from .reference import Reference, plain_name

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Term:
    """One parameter's part of the penalty: `strength/2 (w − target)²`, summed; `anchored` is 1 on w_S."""

    name: str
    parameter: nn.Parameter
    target: Tensor | None  # None stands for zero everywhere
    strength: float | Tensor  # a tensor of shape (rows, 1, …) where the rows of a table differ
    anchored: float | Tensor

    def offset(self) -> Tensor:
        """`w − target` in float32 at least, so that bf16 weights do not lose the difference."""
        wide = torch.promote_types(self.parameter.dtype, torch.float32)
        weight = self.parameter.detach().to(wide)
        return weight if self.target is None else weight - self.target.to(wide)


class Plan:
    """Which weight of the model is pulled where."""

    def __init__(
        self,
        model: nn.Module,
        reference: Reference,
        vocabulary: dict[str, int] | None,
        *,
        alpha: float,
        beta: float,
        residual: float = 0.0,
    ) -> None:
        self.model, self.reference, self.alpha, self.beta = model, reference, alpha, beta
        self.residual = residual
        pretrained = (module for module in model.modules() if isinstance(module, PreTrainedModel))
        self.inner: PreTrainedModel | None = next(pretrained, None)
        self.vocabulary = vocabulary
        self.tables = self._tables()

    def terms(self, *, include_vectors: bool) -> list[Term]:
        names, parameters = _aliases(self.model)
        sources = {key: self._source(aliases) for key, aliases in names.items()}
        self._check_fit(names, parameters, sources)
        terms, fresh = [], []
        for key, parameter in parameters.items():
            if not parameter.requires_grad or (parameter.ndim < 2 and not include_vectors):
                continue
            if self._starts_anew(names[key][0]):
                continue
            source, name = sources[key], names[key][0]
            known, new = self.alpha, self.beta
            if self._is_residual(parameter):
                if not self.residual:
                    continue
                known = new = self.residual
            if source is not None:
                terms.append(self._anchor(name, parameter, self.reference.weights[source], known=known, new=new))
                continue
            fresh.append(name)
            if new:
                terms.append(Term(name, parameter, None, new, 0.0))
        if not any(term.target is not None for term in terms) and not self.beta and not self.residual:
            raise ValueError(
                "L2-SP: no trainable weight is in the reference and `beta` is 0, so the penalty would always be 0. "
                f"Trainable: {listed(fresh)}. Unfreeze weights, or drop the callback."
            )
        if fresh:
            logger.info(f"L2-SP: {len(fresh)} weights are new (beta): {listed(fresh)}")
        return terms

    def _source(self, aliases: list[str]) -> str | None:
        """Name in the reference; a tied weight has several here, of which the reference may hold any."""
        found = [name for alias in aliases for name in self._candidates(alias) if name in self.reference.weights]
        weights = self.reference.weights
        if any(not torch.equal(weights[found[0]], weights[name]) for name in found[1:]):
            raise ValueError(
                f"L2-SP: {listed(aliases)} are one tied weight in the model, but differ in the reference. Untie them "
                "in the model, or use a reference with tied weights."
            )
        return found[0] if found else None

    def _candidates(self, alias: str) -> list[str]:
        name = plain_name(alias)
        prefix = f"{self.inner.base_model_prefix}." if self.inner is not None else ""
        return [name] if prefix in ("", ".") else [name, name.removeprefix(prefix), prefix + name]

    def _tables(self) -> set[int]:
        """Ids of the weights with one row per token: input embedding, head and its bias."""
        if self.inner is None:
            size = len(self.vocabulary or {})
            return {id(weight) for weight in self.model.parameters() if weight.shape[:1] == (size,)}
        modules = [self.inner.get_input_embeddings(), self.inner.get_output_embeddings()]  # type: ignore[no-untyped-call]  # transformers types it not
        return {id(weight) for module in modules if module is not None for weight in module.parameters()}

    def _is_residual(self, parameter: Tensor) -> bool:
        """Whether these are the items' own parts beside their content (`item_representation="content+id"`)."""
        made = self.inner is not None and getattr(self.inner.config, "item_representation", "id") == "content+id"
        return made and parameter is self.inner.get_input_embeddings().weight  # type: ignore[union-attr]

    def _starts_anew(self, name: str) -> bool:
        """Whether it adds to the items' content what holds of the reference's items, and none of them is here."""
        if self.inner is None or getattr(self.inner.config, "item_representation", "id") == "id":
            return False
        return plain_name(name).startswith(("head.", "recent.")) and self._shares_no_item

    @cached_property
    def _shares_no_item(self) -> bool:
        """Whether the reference is known to have none of the model's items."""
        here, known = self.vocabulary, self.reference.vocabulary
        if self.inner is None or here is None or known is None:
            return False
        return all(item not in known for item, row in here.items() if row >= self.inner.config.num_special_tokens)

    def _by_item(self, parameter: Tensor) -> bool:
        known = self.vocabulary is not None and self.reference.vocabulary is not None
        return known and id(parameter) in self.tables and self.vocabulary != self.reference.vocabulary

    def _shared_rows(self, name: str, parameter: Tensor, weight: Tensor) -> list[tuple[int, int]] | None:
        """Rows (here, in the reference) of one item or position; None where all rows correspond as they stand."""
        if self._by_item(parameter):
            current, reference = self.vocabulary or {}, self.reference.vocabulary or {}
            return [(row, reference[item]) for item, row in current.items() if item in reference]
        if _is_position_table(name) and parameter.shape[0] != weight.shape[0]:
            return [(row, row) for row in range(weight.shape[0])]
        return None

    def _anchor(self, name: str, parameter: nn.Parameter, weight: Tensor, *, known: float, new: float) -> Term:
        """The pull to the reference with strength `known`, and of rows that it lacks to zero with strength `new`."""
        shared = self._shared_rows(name, parameter, weight)
        if shared is None:
            return Term(name, parameter, _place(weight.to(parameter.dtype), parameter), known, 1.0)
        limit_here, limit_there = parameter.shape[0], weight.shape[0]
        pairs = torch.tensor([(a, b) for a, b in shared if a < limit_here and b < limit_there]).view(-1, 2)
        target = torch.zeros(parameter.shape, dtype=parameter.dtype)
        target[pairs[:, 0]] = weight[pairs[:, 1]].to(parameter.dtype)
        anchored = torch.zeros(limit_here, *[1] * (parameter.ndim - 1))  # (rows, 1, …)
        anchored[pairs[:, 0]] = 1.0
        logger.info(f"L2-SP: `{name}` has {len(pairs)} rows of the reference, {limit_here - len(pairs)} new")
        strength = (known * anchored.double() + new * (1 - anchored.double())).to(
            torch.promote_types(parameter.dtype, torch.float32)
        )
        return Term(
            name, parameter, _place(target, parameter), _place(strength, parameter), _place(anchored, parameter)
        )

    def _check_fit(
        self, names: dict[int, list[str]], parameters: dict[int, nn.Parameter], sources: dict[int, str | None]
    ) -> None:
        here = self.inner.config.model_type if self.inner is not None else None
        if None not in (here, self.reference.model_type) and here != self.reference.model_type:
            raise ValueError(
                f"L2-SP: expected a `reference` of model type {here!r}, found {self.reference.model_type!r}. Pass the "
                "checkpoint from which this model was initialised."
            )
        if not any(sources.values()):
            raise ValueError(
                f"L2-SP: no weight of the model is in the reference. Model: {listed(v[0] for v in names.values())}; "
                f"reference: {listed(self.reference.weights)}. Pass the checkpoint this model was initialised from."
            )
        clashes = []
        for key, source in sources.items():
            if source is None:
                continue
            shape, expected = parameters[key].shape, self.reference.weights[source].shape
            by_row = self._by_item(parameters[key]) or _is_position_table(names[key][0])
            rows_may_differ = by_row and shape[1:] == expected[1:]
            if shape != expected and not rows_may_differ:
                hint = " (needs both tokenizers)" if key in self.tables and shape[1:] == expected[1:] else ""
                clashes.append(f"{names[key][0]}: {tuple(shape)}, reference {tuple(expected)}{hint}")
        if clashes:
            raise ValueError(
                f"L2-SP: shapes differ from the reference's: {listed(clashes)}. Pass the checkpoint this model was "
                "initialised from; for another catalogue, pass `tokenizer` and `reference_tokenizer`."
            )


def distances(terms: Iterable[Term]) -> dict[str, float]:
    """Distance `‖w − w⁰‖` of each block from the reference."""
    squares: dict[str, float] = defaultdict(float)
    for term in terms:
        if term.target is not None:
            squares[block_of(term.name)] += number((term.offset().square() * term.anchored).sum())
    return {block: math.sqrt(square) for block, square in squares.items()}


def _is_position_table(name: str) -> bool:
    """Whether the rows are positions: a longer or shorter table shares its first rows."""
    return name.endswith("position_embeddings.weight")


def block_of(name: str) -> str:
    """Block under which the distance of a parameter is logged: `model.layers.0`, `model.embeddings`, `decoder`."""
    parts = plain_name(name).split(".")[:-1]
    numbered = [position for position, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbered[0] + 1] if numbered else parts[:2]) or name


def _aliases(model: nn.Module) -> tuple[dict[int, list[str]], dict[int, nn.Parameter]]:
    """All names of each parameter and the parameter, by its id: a tied weight has several names and counts once."""
    names: dict[int, list[str]] = defaultdict(list)
    parameters: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names[id(parameter)].append(name)
        parameters[id(parameter)] = parameter
    return names, parameters


def trainable(model: nn.Module) -> frozenset[int]:
    return frozenset(id(parameter) for parameter in model.parameters() if parameter.requires_grad)


def _place(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Brings a full tensor to where the parameter is, sharded the same way."""
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    placements = [  # a (rows, 1, …) tensor cannot be cut along a dimension of length 1 that is longer in the parameter
        Replicate() if isinstance(place, Shard) and tensor.shape[place.dim] != parameter.shape[place.dim] else place
        for place in parameter.placements
    ]
    return distribute_tensor(tensor, parameter.device_mesh, placements)


def number(value: Tensor) -> float:
    from torch.distributed.tensor import DTensor

    return float(value.full_tensor() if isinstance(value, DTensor) else value)


def listed(names: Iterable[str], limit: int = 20) -> str:
    every = list(names)
    return ", ".join(every[:limit]) + (f", … ({len(every)} in all)" if len(every) > limit else "") or "none"
