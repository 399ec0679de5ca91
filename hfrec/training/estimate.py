"""How much memory a training step takes, from the sizes alone: what to change before the machine says no."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from ..models import Bert4RecConfig, Bert4RecForMaskedLM
from ..models.chunked_loss import rows_at_once
from ..models.hard_negatives import GROUP_SIZE
from ..models.loss_names import SAMPLED_LOSSES
from ..transfer.cooccurrence import EXACT_CELLS, most_cells

FLOAT = 4  # bytes: weights, moments and activations are float32
# glibc's heap keeps holes between blocks below 32 MiB. Measured: 259 and 266 MB where the formulas below say 236 MB.
HOLES = 1.15

# Of the start from the log, measured up to 1,000,000 items and 32,000,000 cells: 3.1 GB and 232 CPU seconds.
CELL = 84  # bytes: the counts, their PMI and the tensor that is factorised
SECONDS_A_CELL = 7e-6  # half of it for 125,000 items
EXACT_SECONDS_A_CELL = 5e-7  # of a matrix that is factorised until it converges


# Of a whole `hfrec pretrain`, measured at 1,682 and at 1,020,000 items: Python, its libraries and the test with its
# baselines, and for each item its id in the vocabulary, the log and the files that are written.
BESIDE = 800 * 2**20
BESIDE_ITEM = 350
EVAL_SCORES = 2**26  # scores that an evaluation batch holds at most, three times: 800 MB


def eval_batch_size(wanted: int, vocab_size: int) -> int:
    """Users scored at a time: as many as wanted, fewer where the catalogue is so large that their scores take memory.

    Example:
        >>> eval_batch_size(256, 20_003), eval_batch_size(256, 1_000_003)
        (256, 67)
    """
    return max(1, min(wanted, EVAL_SCORES // vocab_size))


@dataclass(frozen=True)
class Workload:
    """What one process trains on.

    Args:
        batch_size: Rows in a batch of one process.
        length: Tokens of a row, padding left out: the mean, or the longest to be safe.
        labelled: Share of the tokens that have a label: `mlm_probability`, or 1 for the causal objective.
        eval_batch_size: Users scored at a time in evaluation.
        world_size: Processes.
        sharding: `full` divides weights, gradients and moments among the processes (FSDP, ZeRO-3), `catalogue` the item
            table and the biases with theirs (`shard_catalogue`).
        gradient_checkpointing: Keep the input of each layer only and work out the rest again.
        rowwise_embeddings: The item table has gradients of the rows only that a batch touched.
    """

    batch_size: int = 128
    length: int = 100
    labelled: float = 0.2
    eval_batch_size: int = 256
    world_size: int = 1
    sharding: Literal["none", "full", "catalogue"] = "none"
    gradient_checkpointing: bool = False
    rowwise_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "length", "eval_batch_size", "world_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        if not 0.0 < self.labelled <= 1.0:
            raise ValueError(f"`labelled` must be in (0, 1], found {self.labelled}.")

    @property
    def tokens(self) -> int:
        """Real tokens of a batch."""
        return self.batch_size * self.length

    @property
    def labels(self) -> int:
        """Labelled positions of a batch; every row has one."""
        return max(self.batch_size, round(self.labelled * self.tokens))


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one process, beside Python and its libraries.

    Args:
        parameters: Weights.
        optimizer: The two moments of Adam.
        gradients: All gradients, and the second one of the item embeddings, which arrives from the input.
        activations: What the forward pass keeps for the backward pass.
        scores: Scores of the labelled positions and their gradients, as far as the loss holds them.
        evaluation: Scores of an evaluation batch.
    """

    parameters: int
    optimizer: int
    gradients: int
    activations: int
    scores: int
    evaluation: int

    @property
    def training(self) -> int:
        """Peak of a training step: scores come while all activations are held, gradients when they are gone."""
        return self.parameters + self.optimizer + max(self.activations + self.scores, self.gradients)

    @property
    def total(self) -> int:
        """Peak of training and evaluation."""
        return max(self.training, self.parameters + self.optimizer + self.evaluation)


@dataclass(frozen=True)
class StartEstimate:
    """What `--item_start svd` takes before the first step, at most.

    Args:
        memory: Bytes beside the weights.
        seconds: CPU seconds, about.
    """

    memory: int
    seconds: float


def estimate_start(config: Bert4RecConfig, num_interactions: int | None = None) -> StartEstimate:
    """Memory and time of the start from the log's co-occurrence.

    Args:
        config: The model.
        num_interactions: Of the training part; the longest log, of which a sample is counted, when left out.

    Example:
        >>> round(estimate_start(Bert4RecConfig(vocab_size=1_000_003)).memory / 1e9, 1)
        3.3
    """
    cells = most_cells(config.vocab_size - config.num_special_tokens, num_interactions)
    dense = 2 * FLOAT * config.vocab_size * (_widths(config)[0] + 8)  # 8 columns more than are kept
    seconds = cells * (EXACT_SECONDS_A_CELL if cells <= EXACT_CELLS else SECONDS_A_CELL)
    return StartEstimate(CELL * cells + dense, seconds)


def count_parameters(config: Bert4RecConfig) -> int:
    """Parameters of the masked or causal model, the tied embeddings once.

    Example:
        >>> from hfrec import Bert4RecForMaskedLM
        >>> config = Bert4RecConfig(vocab_size=50, gated_mlp=True, embedding_size=16)
        >>> count_parameters(config) == Bert4RecForMaskedLM(config).num_parameters()
        True
    """
    with torch.device("meta"):  # shapes alone: no memory for the weights
        return int(Bert4RecForMaskedLM(config).num_parameters())


def estimate_memory(config: Bert4RecConfig, workload: Workload) -> MemoryEstimate:
    """Memory of training under the stock `Trainer` and AdamW, in float32.

    The formulas count what the model keeps on a CPU, where it works on real tokens and labelled positions only; on a
    GPU take `length` as the padded one.

    Args:
        config: The model.
        workload: Batch, length and processes.

    Raises:
        ValueError: `rowwise_embeddings` with several processes or a loss that touches every row.

    Example:
        >>> small = estimate_memory(Bert4RecConfig(vocab_size=10_003), Workload())
        >>> large = estimate_memory(Bert4RecConfig(vocab_size=1_000_003, loss="chunked"), Workload())
        >>> round(large.parameters / 2**20), large.scores < small.scores
        (248, True)
    """
    if workload.rowwise_embeddings and (workload.world_size > 1 or config.loss not in SAMPLED_LOSSES):
        raise ValueError(
            "`rowwise_embeddings` is for one process and a sampled loss, found "
            f"{workload.world_size} and {config.loss!r}."
        )
    if workload.sharding == "catalogue":
        part = copy.deepcopy(config)
        part.vocab_size = -(-config.vocab_size // workload.world_size)
        return estimate_memory(part, replace(workload, sharding="none", world_size=1))
    shards = workload.world_size if workload.sharding == "full" else 1
    weights = FLOAT * count_parameters(config)
    table = FLOAT * config.vocab_size * _widths(config)[0]
    beside = 2 * table
    if workload.rowwise_embeddings:  # no table but the rows three times: from the input, from the loss, and added up
        beside = 3 * FLOAT * _rows(config, workload) * _widths(config)[0] - table
    copies = 1 if workload.world_size > 1 and shards == 1 else 0  # DDP's buckets
    return MemoryEstimate(
        parameters=weights // shards + (table if shards > 1 else 0),  # the table is gathered whole for use
        optimizer=2 * weights // shards,
        gradients=weights // shards + copies * weights + beside,
        activations=round(HOLES * FLOAT * _activations(config, workload)),
        scores=FLOAT * _scores(config, workload),
        evaluation=FLOAT * 3 * eval_batch_size(workload.eval_batch_size, config.vocab_size) * config.vocab_size,
    )


def _widths(config: Bert4RecConfig) -> tuple[int, int]:
    """Embedding and feed-forward width; the config fills both in."""
    return config.embedding_size or config.hidden_size, config.intermediate_size or 4 * config.hidden_size


def _activations(config: Bert4RecConfig, workload: Workload) -> int:
    """Floats that the forward pass keeps.

    A layer keeps, for each token: normed input, queries, keys and values, what was attended (twice, once as the input
    of the output layer), two dropout masks, two residual sums, the second norm; the feed-forward part before and after
    its activation. The last layer keeps all but normed input, keys and values for labelled positions only.
    """
    hidden, (width, inner) = config.hidden_size, _widths(config)
    tokens, labels = workload.tokens, workload.labels
    wide = inner * (4 if config.gated_mlp else 2)
    layer, layer_inputs = 11 * hidden + wide, 4 * hidden
    last = tokens * layer_inputs + labels * (layer - layer_inputs + 2 * hidden)
    before = tokens * (2 * hidden + width)
    after = labels * (2 * hidden + 3 * width)
    if workload.gradient_checkpointing:
        return before + after + config.num_hidden_layers * tokens * hidden + max(tokens * layer, last)
    return before + after + (config.num_hidden_layers - 1) * tokens * layer + last


def _scores(config: Bert4RecConfig, workload: Workload) -> int:
    """Floats of the loss and of the items that it leaves out (64-bit tokens)."""
    seen = 2 * workload.labels * workload.length if config.loss_candidates == "unseen" and config.filter_seen else 0
    return seen + _loss(config, workload)


def _loss(config: Bert4RecConfig, workload: Workload) -> int:
    """Floats of the loss: the full one holds log-probabilities and two gradients of them at once."""
    labels, table = workload.labels, config.vocab_size * _widths(config)[0]
    if config.loss == "full":
        return 3 * labels * config.vocab_size
    if config.loss == "chunked":
        height = rows_at_once(labels, config.vocab_size, config.loss_chunk_size)
        if height:  # one buffer of scores; the gradient of the table twice, once scaled
            return min(height, labels) * config.vocab_size + 2 * table
        return 2 * min(config.loss_chunk_size, labels * config.vocab_size) + table
    negatives, hard = _negatives(config), _hard_negatives(config)
    dense = 0 if workload.rowwise_embeddings else table
    groups = labels // GROUP_SIZE
    search = groups * config.vocab_size if hard else 0  # freed before the hard negatives are scored
    beside = max(search, 4 * labels * hard + 2 * groups * hard * _widths(config)[0])
    return 4 * labels * negatives + 2 * (labels + negatives) * _widths(config)[0] + dense + beside


def _negatives(config: Bert4RecConfig) -> int:
    """Negatives of a batch."""
    return min(config.num_negatives, config.vocab_size)


def _hard_negatives(config: Bert4RecConfig) -> int:
    """Hard negatives of a position."""
    return min(config.num_hard_negatives, config.vocab_size)


def _rows(config: Bert4RecConfig, workload: Workload) -> int:
    """Most rows of the item table that a batch touches."""
    hard = _hard_negatives(config) * (workload.labels // GROUP_SIZE)
    return min(config.vocab_size, workload.tokens + workload.labels + _negatives(config) + hard)


def suggestions(config: Bert4RecConfig, workload: Workload, *, at_least: int = 0) -> list[str]:
    """What would save the most, largest saving first; each with the peak that it leads to.

    Args:
        config: The model.
        workload: Batch, length and processes.
        at_least: Bytes that are taken in any case, such as those of the start.
    """
    changes: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("--loss chunked", {"loss": "chunked"}, {}),
        ("--loss sampled_softmax", {"loss": "sampled_softmax"}, {}),
        (f"--embedding_size {config.hidden_size // 2}", {"embedding_size": config.hidden_size // 2}, {}),
        ("--gradient_checkpointing true", {}, {"gradient_checkpointing": True}),
    ]
    half = max(1, workload.batch_size // 2)
    eighth = max(1, eval_batch_size(workload.eval_batch_size, config.vocab_size) // 8)
    halved = f"--per_device_train_batch_size {half} --gradient_accumulation_steps 2"
    changes += [(halved, {}, {"batch_size": half})]
    if config.loss in SAMPLED_LOSSES and workload.world_size == 1:
        changes += [("--rowwise_embeddings true", {}, {"rowwise_embeddings": True})]
    changes += [(f"--per_device_eval_batch_size {eighth}", {}, {"eval_batch_size": eighth})]
    now, found = max(estimate_memory(config, workload).total, at_least), []
    for flag, model, batch in changes:
        other = copy.deepcopy(config)
        for name, value in model.items():
            setattr(other, name, value)
        after = max(estimate_memory(other, replace(workload, **batch)).total, at_least)
        if after < 0.9 * now:
            found.append((after, f"{flag}: {after / 2**20:,.0f} MiB"))
    return [text for _, text in sorted(found)]
