"""From rows of item histories to padded batches, for masked and causal training and for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
import torch

from ..tokenization import IGNORED, NUM_SPECIAL_TOKENS, ItemTokenizer
from .inputs import Input, input_names, known_when_asked

Objective = Literal["masked", "causal", "blend"]
OBJECTIVES: dict[str, Objective] = {
    "Bert4RecForMaskedLM": "masked",
    "Bert4RecForCausalLM": "causal",
    "Blend": "blend",
}
PaddingSide = Literal["left", "right"]


def objective_of(model: torch.nn.Module) -> Objective:
    """What a model wants of a history: a `[MASK]` after it, the question at its newest item, or it as it is.

    By the name of its class or of a class that it derives from, as a model loaded as remote code has a class of its
    own; what is wrapped in an adapter or for several processes is found inside.

    Raises:
        TypeError: It is neither a masked model nor a causal one nor a blend.

    Example:
        >>> from hfrec import Bert4RecConfig, Bert4RecForCausalLM
        >>> objective_of(Bert4RecForCausalLM(Bert4RecConfig(vocab_size=5)))
        'causal'
    """
    for module in model.modules():  # a blend comes before the networks in it
        for kind in type(module).__mro__:
            if kind.__name__ in OBJECTIVES:
                return OBJECTIVES[kind.__name__]
    raise TypeError(
        f"`model` must be a {', '.join(list(OBJECTIVES)[:-1])} or {list(OBJECTIVES)[-1]}, found "
        f"{type(model).__name__}. Load the checkpoint with one of these classes."
    )


def pad_newest(
    rows: Sequence[Any], length: int | None = None, padding_side: PaddingSide = "left"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows of token ids to the longest, keeping the newest `length` of each.

    Returns:
        Token ids and the attention mask, int64, both `(batch, longest)`.

    Example:
        >>> pad_newest([[5, 6, 7], [8]], length=2)[0].tolist()
        [[6, 7], [0, 8]]
    """
    arrays = [np.asarray(row, dtype=np.int64)[-length if length else None :] for row in rows]
    if len(arrays) == 1:  # nothing to pad: half of the time of a single request's batch
        single = torch.from_numpy(arrays[0].copy())[None]
        return single, torch.ones_like(single)
    sizes = np.array([len(array) for array in arrays])
    width = int(sizes.max(initial=0))
    steps = np.arange(width)
    mask = steps >= width - sizes[:, None] if padding_side == "left" else steps < sizes[:, None]
    tokens = np.zeros((len(arrays), width), dtype=np.int64)
    tokens[mask] = np.concatenate(arrays) if arrays else []
    return torch.from_numpy(tokens), torch.from_numpy(mask.astype(np.int64))


def pad_inputs(
    features: Sequence[dict[str, Any]],
    inputs: Sequence[Input],
    attention_mask: torch.Tensor,
    *,
    next_item: bool = False,
    padding_side: PaddingSide = "left",
) -> dict[str, torch.Tensor]:
    """The codes of each input as a tensor of the shape of the tokens `(batch, longest)`, 0 at the padding.

    Args:
        features: Rows with `inputs`, as `to_sequences` and `to_requests` make them.
        inputs: As the model's config declares them.
        attention_mask: Of the tokens `(batch, longest)`.
        next_item: Each token asks for the next one, whose code it reads of what is known when an item is asked for.
        padding_side: Of the tokens.

    Raises:
        ValueError: Rows without these inputs, or with codes for other tokens.
    """
    names = {entry["name"] for entry in inputs}
    if any(set(feature.get("inputs") or ()) != names for feature in features):
        raise ValueError(
            f"`features` must hold `inputs` with {input_names(inputs)}, which the model reads beside the items, found "
            f"{', '.join(features[0].get('inputs') or ()) or 'none'}: make the rows with `inputs=model.config.inputs`."
        )
    found = {}
    for entry in inputs:
        rows = [np.asarray(feature["inputs"][entry["name"]], dtype=np.int64) for feature in features]
        if next_item:
            part = slice(1, None) if known_when_asked(entry) else slice(-1)
            rows = [row[part] if len(row) > 1 else row for row in rows]  # one code alone: of an empty history
        found[entry["name"]], filled = pad_newest(rows, attention_mask.shape[1], padding_side)
        if not torch.equal(filled, attention_mask):
            raise ValueError(
                f"`features` must hold a code of {entry['name']!r} for each item and, where something is asked, one "
                "more: make them with `to_sequences`, `to_evaluation_sequences` or `to_requests`."
            )
    return found


def _check_probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"`{name}` must be in [0, 1], found {value}.")


def _check_max_length(max_length: int | None, smallest: int) -> None:
    if max_length is not None and max_length < smallest:
        raise ValueError(f"`max_length` must be at least {smallest}, found {max_length}.")


@dataclass
class DataCollatorForMaskedItems:
    """Masks items for masked item prediction (Sun et al., CIKM 2019, section 3.6).

    Only items are masked and only items are drawn as replacements; every row has a label; a share of the rows has
    just its newest item masked, which is the question asked at recommendation.

    Args:
        tokenizer: Gives the special tokens and the vocabulary's size.
        mlm_probability: Chance of each item to be predicted, in (0, 1].
        mask_last_probability: Share of rows in which only the newest item is predicted.
        mask_replace_prob: Share of the predicted items that the model sees as `[MASK]`.
        random_replace_prob: Share that it sees as a random item; the rest it sees unchanged.
        max_length: Newest items of a row that are kept; all when None.
        padding_side: Where short rows are filled up.
        seed: With it the masks depend on the seed and on the rows of the batch in their order alone: worker processes
            draw the same, and so does a run that is resumed in the middle of an epoch. Each epoch must bring the rows
            in another order, as `Trainer`'s sampler does. None draws from torch's global generator, which is some
            batches ahead when a checkpoint is written.
        inputs: What the model reads beside the items: `model.config.inputs`. What is known of an item afterwards alone
            is hidden where it is to be predicted.

    Returns:
        `input_ids`, `attention_mask` and `labels`, int64 `(batch, longest)`, -100 where nothing is predicted; with
        inputs also `inputs`, the codes of each `(batch, longest)`.

    Example:
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> collator = DataCollatorForMaskedItems(tokenizer, mask_last_probability=1.0)
        >>> batch = collator([{"input_ids": [3, 4, 5]}, {"input_ids": [4]}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[3, 4, 1], [0, 0, 1]], [[-100, -100, 5], [-100, -100, 4]])
    """

    tokenizer: ItemTokenizer
    mlm_probability: float = 0.2
    mask_last_probability: float = 0.1
    mask_replace_prob: float = 1.0
    random_replace_prob: float = 0.0
    max_length: int | None = None
    padding_side: PaddingSide = "left"
    seed: int | None = None
    inputs: Sequence[Input] | None = None

    def __post_init__(self) -> None:
        for name in ("mlm_probability", "mask_last_probability", "mask_replace_prob", "random_replace_prob"):
            _check_probability(name, getattr(self, name))
        if self.mlm_probability == 0.0:
            raise ValueError("`mlm_probability` must be above 0, found 0.0: nothing would be learnt.")
        if self.mask_replace_prob + self.random_replace_prob > 1.0:
            raise ValueError(
                "`mask_replace_prob` + `random_replace_prob` must not pass 1, found "
                f"{self.mask_replace_prob} + {self.random_replace_prob}."
            )
        _check_max_length(self.max_length, 1)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [feature["input_ids"] for feature in features]
        input_ids, attention_mask = pad_newest(rows, self.max_length, self.padding_side)  # (batch, length)
        items = input_ids >= NUM_SPECIAL_TOKENS
        if not bool(items.any(dim=-1).all()):
            raise ValueError("`features` holds a history without an item: drop empty histories before training.")
        generator = self._generator(input_ids)
        chosen = self._choose(items, generator)
        labels = input_ids.masked_fill(~chosen, IGNORED)
        fate = torch.rand(input_ids.shape, generator=generator)
        masked = chosen & (fate < self.mask_replace_prob)
        swapped = chosen & ~masked & (fate < self.mask_replace_prob + self.random_replace_prob)
        input_ids = input_ids.masked_fill(masked, self.tokenizer.mask_token_id)
        if self.random_replace_prob:
            draws = torch.randint(NUM_SPECIAL_TOKENS, len(self.tokenizer), input_ids.shape, generator=generator)
            input_ids = torch.where(swapped, draws, input_ids)
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        if self.inputs:
            found = pad_inputs(features, self.inputs, attention_mask, padding_side=self.padding_side)
            hidden = [entry["name"] for entry in self.inputs if not known_when_asked(entry)]
            batch["inputs"] = {**found, **{name: found[name].masked_fill(chosen, 0) for name in hidden}}
        return batch

    def _generator(self, input_ids: torch.Tensor) -> torch.Generator | None:
        """A generator that this batch alone decides on, or None for torch's global one."""
        if self.seed is None:
            return None
        digest = blake2b(input_ids.numpy().tobytes(), digest_size=8, key=str(self.seed).encode())
        return torch.Generator().manual_seed(int.from_bytes(digest.digest(), "little"))

    def _choose(self, items: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Positions to predict `(batch, length)`: by chance, at least one a row, or only the newest."""
        steps = torch.arange(items.shape[1])
        draws = torch.rand(items.shape, generator=generator).masked_fill(~items, 2.0)
        chosen = draws < self.mlm_probability
        # The smallest draw of a row without a pick is a uniform choice among its items.
        chosen |= ~chosen.any(dim=-1, keepdim=True) & (steps == draws.argmin(dim=-1, keepdim=True))
        newest = steps == (items.long() * (steps + 1)).argmax(dim=-1, keepdim=True)
        last_only = torch.rand(items.shape[:1], generator=generator) < self.mask_last_probability
        return torch.where(last_only[:, None], newest, chosen)


@dataclass
class DataCollatorForNextItem:
    """Makes batches that ask for the next item: causal training, evaluation and recommendation.

    Rows with `target` (evaluation) get one label; rows without get a label at every position when `train` is set
    (causal training), none otherwise (recommendation).

    Args:
        tokenizer: Gives the special tokens.
        objective: `masked` puts `[MASK]` after the history; `causal` asks at the newest item, an empty history being
            one `[UNK]`; `blend` takes the history as it is.
        max_length: Newest tokens that are kept, the `[MASK]` included.
        padding_side: Where short rows are filled up.
        train: Causal training: each row `s` becomes the input `s[:-1]` with the labels `s[1:]`.
        inputs: What the model reads beside the items: `model.config.inputs`. What is known when an item is asked for
            the masked model reads at its `[MASK]`, the causal one at the item before it.

    Returns:
        `input_ids`, `attention_mask` and, where there is something to predict, `labels`, int64 `(batch, longest)`;
        outside training also `seen_ids` `(batch, longest history)`, the whole histories filled with 0; with inputs also
        `inputs`, the codes of each `(batch, longest)`.

    Example:
        >>> tokenizer = ItemTokenizer.from_items(["a", "b", "c"])
        >>> evaluate = DataCollatorForNextItem(tokenizer, "masked", max_length=2)
        >>> {name: value.tolist() for name, value in evaluate([{"input_ids": [3, 4], "target": 5}]).items()}
        {'input_ids': [[4, 1]], 'attention_mask': [[1, 1]], 'labels': [[-100, 5]], 'seen_ids': [[3, 4]]}
        >>> train = DataCollatorForNextItem(tokenizer, "causal", train=True)
        >>> batch = train([{"input_ids": [3, 4, 5]}])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[3, 4]], [[4, 5]])
    """

    tokenizer: ItemTokenizer
    objective: Objective = "masked"
    max_length: int | None = None
    padding_side: PaddingSide = "left"
    train: bool = False
    inputs: Sequence[Input] | None = None

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES.values():
            raise ValueError(f"`objective` must be 'masked', 'causal' or 'blend', found {self.objective!r}.")
        if self.train and self.objective != "causal":
            raise ValueError("`train=True` is for the causal objective: use DataCollatorForMaskedItems.")
        _check_max_length(self.max_length, 1)

    def __call__(self, features: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        histories = [np.asarray(feature["input_ids"], dtype=np.int64) for feature in features]
        if self.train:
            return self._training_batch(histories, features)
        prompts = [self._prompt(history) for history in histories]
        input_ids, attention_mask = pad_newest(prompts, self.max_length, self.padding_side)
        batch: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
        if features and "target" in features[0]:
            steps = torch.arange(1, input_ids.shape[1] + 1)
            newest = (attention_mask * steps).argmax(dim=-1)  # (batch,)
            labels = torch.full_like(input_ids, IGNORED)
            labels[torch.arange(len(newest)), newest] = torch.tensor([int(feature["target"]) for feature in features])
            batch["labels"] = labels
        batch["seen_ids"] = pad_newest(histories)[0]
        return self._with_inputs(batch, features)

    def _prompt(self, history: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        if self.objective == "masked":
            return np.concatenate([history, [self.tokenizer.mask_token_id]])
        nothing = self.tokenizer.unk_token_id if self.objective == "causal" else self.tokenizer.pad_token_id
        return history if len(history) else np.array([nothing])

    def _with_inputs(self, batch: dict[str, Any], features: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch with the codes of its tokens, where the model reads any."""
        if not self.inputs:
            return batch
        given: Any = {"next_item": self.objective == "causal", "padding_side": self.padding_side}
        return {**batch, "inputs": pad_inputs(features, self.inputs, batch["attention_mask"], **given)}

    def _training_batch(
        self, histories: list[np.ndarray[Any, Any]], features: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        if any(len(history) < 2 for history in histories):
            raise ValueError(
                "`features` holds a history of fewer than 2 items: the causal objective has no label there."
            )
        input_ids, attention_mask = pad_newest([row[:-1] for row in histories], self.max_length, self.padding_side)
        labels, _ = pad_newest([row[1:] for row in histories], self.max_length, self.padding_side)
        labels = labels.masked_fill(labels < NUM_SPECIAL_TOKENS, IGNORED)  # neither padding nor [UNK] is predicted
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return self._with_inputs(batch, features)
