"""The losses are what they say, accumulate as one big batch, and the bounded ones stay within their bounds."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hfrec.models import Bert4RecConfig, Bert4RecForCausalLM, Bert4RecForMaskedLM
from hfrec.models.chunked_loss import chunked_cross_entropy, norms_and_targets
from hfrec.models.losses import (
    IGNORED,
    Candidates,
    NegativeSampler,
    gbce_losses,
    item_cross_entropy,
    sampled_softmax_losses,
    score_candidates,
)

TARGETS = torch.tensor([3, 25, 10, -100, 4, 9, 25])
KINDS = ("uniform", "log_uniform", "in_batch", "mixed")


def _case() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 11, generator=generator)
    logits[:, :3] = float("-inf")
    return logits.requires_grad_(), torch.tensor([3, 5, 10, 4, 4, 9])


def test_equals_cross_entropy() -> None:
    """A loss with a wrong scale trains, only with another learning rate than the one stated."""
    logits, labels = _case()
    torch.testing.assert_close(item_cross_entropy(logits, labels), F.cross_entropy(logits, labels))


def test_unequal_parts_divided_by_the_step_total_are_one_big_batch() -> None:
    """The mean of means gives the labels of a short batch too much weight."""
    logits, labels = _case()
    parts = [item_cross_entropy(logits[rows], labels[rows], torch.tensor(6)) for rows in (slice(0, 2), slice(2, 6))]
    torch.testing.assert_close(sum(parts), F.cross_entropy(logits, labels))


def test_half_precision_scores_are_summed_in_float() -> None:
    """A cross-entropy in bfloat16 loses the small probabilities of a large catalogue."""
    logits, labels = _case()
    low = logits.detach().bfloat16()
    assert item_cross_entropy(low, labels).dtype == torch.float32
    torch.testing.assert_close(item_cross_entropy(low, labels), F.cross_entropy(low.float(), labels))


def test_nothing_labelled_gives_zero_with_zero_gradient() -> None:
    """0 / 0 would turn the weights of a whole run into NaN on one empty batch."""
    logits, labels = _case()
    loss = item_cross_entropy(logits[:0], labels[:0])
    loss.backward()
    assert loss.item() == 0.0
    assert logits.grad is not None and not logits.grad.any()


class _LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation put out."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


def _leaves(*, bias: bool = True, dtype: torch.dtype = torch.float32) -> list[torch.Tensor | None]:
    """Representations of 7 positions, weights and biases of 23 items behind 3 special tokens."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(7, 5), (26, 5), (26,)] if bias else [(7, 5), (26, 5)]
    leaves = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    return [*leaves, *[None] * (3 - len(leaves))]


def _full(hidden: Any, weight: Any, bias: Any, **options: Any) -> torch.Tensor:
    logits = F.linear(hidden, weight, bias).masked_fill(torch.arange(26) < 3, -math.inf)
    return item_cross_entropy(logits, TARGETS, **options)


def _chunked(hidden: Any, weight: Any, bias: Any, *, chunk_size: int = 12, **options: Any) -> torch.Tensor:
    rest: dict[str, Any] = {"labels": TARGETS, "num_special_tokens": 3, "chunk_size": chunk_size, **options}
    return chunked_cross_entropy(hidden, weight=weight, bias=bias, **rest)


def _gradients(loss: torch.Tensor, leaves: list[Any]) -> list[torch.Tensor]:
    return list(torch.autograd.grad(3.0 * loss, [leaf for leaf in leaves if leaf is not None]))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk_size", [1, 12, 30, 10_000])
@pytest.mark.parametrize("num_items_in_batch", [None, 11])
def test_chunked_is_cross_entropy(bias: bool, chunk_size: int, num_items_in_batch: int | None) -> None:
    """A block that is left out or counted twice gives a loss that still falls, towards another model."""
    leaves = _leaves(bias=bias)
    expected = _full(*leaves, num_items_in_batch=num_items_in_batch)
    loss = _chunked(*leaves, chunk_size=chunk_size, num_items_in_batch=num_items_in_batch)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(_gradients(loss, leaves), _gradients(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_chunked_gradients_are_those_of_finite_differences() -> None:
    """The backward pass is written by hand."""
    assert torch.autograd.gradcheck(_chunked, tuple(_leaves(dtype=torch.double)))


def test_shares_of_the_table_make_up_the_loss() -> None:
    """A divided catalogue adds them up: a share that counts a target that it lacks, or is NaN where a row sees all of
    its items, spoils every other share."""
    leaves = _leaves(dtype=torch.double)
    hidden, weight, bias = leaves
    assert hidden is not None and weight is not None and bias is not None
    rows, labels = TARGETS != IGNORED, TARGETS[TARGETS != IGNORED]
    seen = torch.arange(20, 26).expand(len(labels), 6)  # the whole last share, but for the targets
    parts = []
    for first, stop in ((0, 2), (2, 20), (20, 26)):
        own = (labels >= first) & (labels < stop)
        places = torch.where(own, labels - first, stop - first)
        share = {"weight": weight[first:stop], "bias": bias[first:stop], "labels": places, "seen": seen - first}
        specials = min(max(3 - first, 0), stop - first)
        parts.append(norms_and_targets(hidden[rows], **share, num_special_tokens=specials, chunk_size=12))
    norms, targets = (torch.stack(found) for found in zip(*parts, strict=True))
    loss = (norms.logsumexp(dim=0) - targets.sum(dim=0)).mean()
    expected = _chunked(hidden[rows], weight, bias, labels=labels, seen=seen)
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(_gradients(loss, leaves), _gradients(expected, leaves), strict=True):
        torch.testing.assert_close(found, wanted)


def test_chunked_leaves_frozen_weights_alone() -> None:
    """A frozen table of a million items must cost no gradient."""
    hidden, weight, bias = _leaves()
    assert weight is not None and hidden is not None
    weight.requires_grad_(False)
    _chunked(hidden, weight, bias).backward()
    assert weight.grad is None
    (expected,) = torch.autograd.grad(_full(hidden, weight, bias), [hidden])
    torch.testing.assert_close(hidden.grad, expected)


def test_chunked_of_nothing_is_zero() -> None:
    """A batch without labels must neither divide by zero nor stop the run."""
    hidden, weight, bias = _leaves()
    loss = _chunked(hidden, weight, bias, labels=torch.full((7,), -100))
    loss.backward()
    assert loss.item() == 0.0
    assert weight is not None and weight.grad is not None and not weight.grad.any()


def test_chunked_under_autocast_is_the_full_loss_under_autocast() -> None:
    """The backward pass runs outside of autocast: it must make the same scores again, not better ones."""
    leaves = _leaves()
    with torch.autocast("cpu", torch.bfloat16):
        losses = [_chunked(*leaves), _full(*leaves)]
    torch.testing.assert_close(losses[0], losses[1], rtol=0.02, atol=0.02)
    for found, wanted in zip(*(_gradients(loss, leaves) for loss in losses), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=0.05, atol=0.05)


LIGER = """
import torch
from hfrec.models import chunked_loss
from torch.nn import functional as F

liger = chunked_loss._liger
assert liger("cpu") is None and liger("cuda") is not None
chunked_loss._liger = lambda _: liger("cuda")  # Triton's interpreter runs the kernel on the CPU
torch.manual_seed(0)
hidden, weight, bias = torch.randn(41, 8), torch.randn(70, 8), torch.randn(70)
inputs = [part.requires_grad_() for part in (hidden, weight, bias)]
labels = torch.randint(3, 70, (41,))
labels[5] = -100
for precise in (True, False):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
        found = chunked_loss.chunked_cross_entropy(
            hidden, weight=weight, bias=bias, labels=labels, num_special_tokens=3, chunk_size=500
        )
        scores = F.linear(hidden, weight, bias)
    expected = F.cross_entropy(scores[:, 3:].float(), (labels - 3).where(labels > 0, labels))
    pairs = zip(torch.autograd.grad(found, inputs), torch.autograd.grad(expected, inputs))
    for one, other in [(found, expected), *pairs]:
        torch.testing.assert_close(one, other, **({} if precise else {"rtol": 0.02, "atol": 0.002}))
"""


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("liger_kernel", "triton")),
    reason="liger-kernel and triton are not installed",
)
def test_liger_computes_the_chunked_loss() -> None:
    """A label that is off by the special tokens trains another item, on GPUs only."""
    root = Path(__file__).parents[2]
    environment = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    done = subprocess.run([sys.executable, "-c", LIGER], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_chunked_never_holds_more_than_a_chunk_of_scores() -> None:
    """The whole (num_labelled, vocab_size) tensor is what makes large catalogues impossible."""
    hidden = torch.randn(300, 4, requires_grad=True)
    weight = torch.randn(1003, 4, requires_grad=True)
    labels = torch.randint(3, 1003, (300,))
    with _LargestTensor() as watch:
        _chunked(hidden, weight, None, labels=labels, chunk_size=2000).backward()
    assert watch.largest == weight.numel()  # the gradient of the embeddings; 300 * 1003 scores would be 75 times more


def _candidates(hidden: Any, weight: Any, bias: Any, sampler: NegativeSampler) -> Candidates:
    targets = TARGETS[TARGETS != -100]
    rows = hidden[TARGETS != -100]
    return score_candidates(rows, weight=weight, bias=bias, target_ids=targets, negative_ids=sampler.draw(targets))


def _label_counts() -> torch.Tensor:
    return torch.bincount(TARGETS[TARGETS != -100], minlength=26).float()


@pytest.mark.parametrize("kind", KINDS)
def test_sampled_softmax_with_every_item_is_the_full_softmax(kind: Any) -> None:
    """A target that counts twice, or a correction where nothing is sampled, trains another model."""
    leaves = _leaves()
    sampler = NegativeSampler(kind, num_items=23, first=3, count=23)
    loss = sampled_softmax_losses(_candidates(*leaves, sampler), sampler, _label_counts()).mean()
    torch.testing.assert_close(loss, _full(*leaves), rtol=1e-5, atol=1e-5)
    for found, wanted in zip(_gradients(loss, leaves), _gradients(_full(*leaves), leaves), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_expected_counts_are_how_often_an_item_is_drawn(kind: Any) -> None:
    """A correction by another distribution than the drawn one biases the scores by popularity."""
    torch.manual_seed(0)
    sampler, targets, draws = NegativeSampler(kind, num_items=23, first=3, count=20), TARGETS[TARGETS != -100], 3000
    drawn = torch.cat([sampler.draw(targets) for _ in range(draws)])
    assert drawn.min() >= 3 and drawn.max() <= 25 and len(drawn) == 20 * draws
    found = torch.bincount(drawn, minlength=26)[3:] / draws
    expected = sampler.log_expected_count(torch.arange(3, 26), _label_counts()).exp()
    reachable = found > 0 if kind == "in_batch" else torch.ones(23, dtype=torch.bool)
    assert reachable.sum() == (5 if kind == "in_batch" else 23)
    if kind == "mixed":  # an item that was no label yet is given one, so that its correction stays finite
        reachable = _label_counts()[3:] > 0
    torch.testing.assert_close(found[reachable], expected[reachable], rtol=0.1, atol=0.02)


def test_log_q_correction_by_hand() -> None:
    """Without the target's own correction, popular items are scored too low."""
    sampler = NegativeSampler("log_uniform", num_items=7, first=3, count=2)
    scores = torch.tensor([1.0]), torch.tensor([4]), torch.tensor([[0.5, 2.0]]), torch.tensor([3, 9])
    share = {item: math.log((item - 1) / (item - 2)) / math.log(8) for item in (3, 4, 9)}
    target, *negatives = (math.exp(score) / (2 * share[item]) for score, item in ((1.0, 4), (0.5, 3), (2.0, 9)))
    expected = -math.log(target / (target + sum(negatives)))
    torch.testing.assert_close(sampled_softmax_losses(Candidates(*scores), sampler), torch.tensor([expected]))


def test_accidental_hits_do_not_push_the_target_down() -> None:
    """A target among its own negatives is taught to be wrong."""
    hidden, weight, bias = _leaves()
    options = {"weight": weight, "bias": bias, "target_ids": torch.tensor([4, 9])}
    with_hit = score_candidates(hidden[:2], negative_ids=torch.tensor([4, 12]), **options)  # type: ignore[index,arg-type]
    assert with_hit.negatives.isneginf().tolist() == [[True, False], [False, False]]
    sampler = NegativeSampler("uniform", num_items=23, first=3, count=2)
    without = score_candidates(
        hidden[:1], negative_ids=torch.tensor([12]), **{**options, "target_ids": torch.tensor([4])}
    )  # type: ignore[index,arg-type]
    torch.testing.assert_close(sampled_softmax_losses(with_hit, sampler)[:1], sampled_softmax_losses(without, sampler))
    assert torch.isfinite(gbce_losses(with_hit, 23, 0.75)).all()


def test_gbce_is_the_formula_of_the_paper() -> None:
    """A calibration with α and β swapped trains too, with over-confident scores."""
    targets, negatives = torch.tensor([0.3, -1.0]), torch.tensor([[1.2, -0.4, 0.1], [0.0, 2.0, -3.0]])
    candidates = Candidates(targets, torch.tensor([3, 4]), negatives, torch.tensor([5, 6, 7]))
    for t in (0.0, 0.75, 1.0):
        alpha = 3 / 9
        beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
        positive = targets.double().sigmoid().pow(beta).log()
        expected = -(positive + (1 - negatives.double().sigmoid()).log().sum(-1)) / 4
        torch.testing.assert_close(gbce_losses(candidates, 10, t).double(), expected)


@pytest.mark.parametrize("kind", [Bert4RecForMaskedLM, Bert4RecForCausalLM])
@pytest.mark.parametrize("loss", ["chunked", "sampled_softmax", "gbce"])
def test_bounded_losses_return_no_logits_in_training_and_all_of_them_in_evaluation(kind: Any, loss: Any) -> None:
    """Logits in training are the memory that is to be saved; without them in evaluation nothing is ranked."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "max_position_embeddings": 4}
    model = kind(Bert4RecConfig(**shape, hidden_dropout_prob=0.0, loss=loss, num_negatives=6)).train()
    batch = {"input_ids": torch.tensor([[5, 6, 1], [7, 8, 1]]), "labels": torch.tensor([[-100, -100, 9]] * 2)}
    training = model(**batch)
    assert training.logits is None
    half = model(**batch, num_items_in_batch=torch.tensor(4)).loss
    if loss == "chunked":
        torch.testing.assert_close(half, training.loss / 2)
    training.loss.backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)
    evaluation = model.eval()(**batch)
    full = kind(Bert4RecConfig(**shape)).eval()
    full.load_state_dict(model.state_dict())
    expected = full(**batch)
    torch.testing.assert_close(evaluation.logits, expected.logits)
    torch.testing.assert_close(evaluation.loss, expected.loss)


@pytest.mark.parametrize("loss", ["sampled_softmax", "gbce"])
def test_sampled_losses_divide_by_the_labels_of_the_step(loss: Any) -> None:
    """Accumulated parts would count by the batch they fell into."""
    config = Bert4RecConfig(vocab_size=20, hidden_size=8, hidden_dropout_prob=0.0, loss=loss, num_negatives=6)
    model = Bert4RecForMaskedLM(config).train()
    batch = {"input_ids": torch.tensor([[5, 6, 1], [7, 8, 1]]), "labels": torch.tensor([[-100, -100, 9]] * 2)}
    losses = []
    for number in (None, torch.tensor(8)):
        torch.manual_seed(0)  # the same negatives
        losses.append(model(**batch, num_items_in_batch=number).loss)
    torch.testing.assert_close(losses[1], losses[0] / 4)


def test_label_frequencies_are_kept_and_start_anew_with_another_vocabulary(tmp_path: Any) -> None:
    """A resumed run would correct by other frequencies; a grown model would correct by those of other items."""
    config = Bert4RecConfig(vocab_size=20, hidden_size=8, loss="sampled_softmax", negative_sampling="in_batch")
    config.num_negatives = 4
    model = Bert4RecForMaskedLM(config).train()
    model(input_ids=torch.tensor([[5, 1]]), labels=torch.tensor([[-100, 9]]))
    model.save_pretrained(tmp_path)
    loaded = Bert4RecForMaskedLM.from_pretrained(tmp_path).train()
    assert loaded.label_counts is not None and loaded.label_counts.nonzero().flatten().tolist() == [9]
    loaded.resize_token_embeddings(25)
    loaded.save_pretrained(tmp_path)
    assert Bert4RecForMaskedLM.from_pretrained(tmp_path).label_counts.tolist() == [0.0] * 25


def test_a_checkpoint_from_before_the_losses_loads_and_changes_its_loss(tmp_path: Any) -> None:
    """An old config has none of the fields, an old checkpoint no frequencies: those must not be what was in memory."""
    Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=20, hidden_size=8)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    fields = ("loss", "num_negatives", "num_hard_negatives", "negative_sampling", "gbce_t")
    path.write_text("".join(line for line in path.open() if not any(f'"{name}' in line for name in fields)))
    assert Bert4RecForMaskedLM.from_pretrained(tmp_path).config.loss == "full"
    options: dict[str, Any] = {"loss": "sampled_softmax", "negative_sampling": "mixed"}
    assert Bert4RecForMaskedLM.from_pretrained(tmp_path, **options).label_counts.tolist() == [0.0] * 20


@pytest.mark.parametrize("loss", ["full", "chunked"])
def test_smoothed_losses_are_those_of_the_scores_of_all_items(loss: Any) -> None:
    """Shares on special tokens are infinite losses, and a mean over the wrong rows is another prior."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "hidden_dropout_prob": 0.0}
    model = Bert4RecForMaskedLM(Bert4RecConfig(**shape, loss=loss, label_smoothing=0.3)).train()
    with torch.no_grad():
        model.decoder.bias.normal_()
        model.decoder.weight.normal_()
    batch = {
        "input_ids": torch.tensor([[5, 6, 1], [7, 8, 1]]),
        "labels": torch.tensor([[-100, -100, 9], [-100, -100, 4]]),
    }
    found = model(**batch).loss
    gradient = torch.autograd.grad(found, model.decoder.weight)[0]
    plain = Bert4RecForMaskedLM(Bert4RecConfig(**shape)).train()
    plain.load_state_dict(model.state_dict())
    scores = plain(**batch).logits[:, 3:]
    expected = torch.nn.functional.cross_entropy(scores, torch.tensor([6, 1]), label_smoothing=0.3)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, plain.decoder.weight)[0])
    plain_loss = torch.nn.functional.cross_entropy(scores, torch.tensor([6, 1]))
    torch.testing.assert_close(model.eval()(**batch).loss, plain_loss)  # evaluation measures what it always did


def test_smoothing_of_what_has_no_distribution_is_refused() -> None:
    """gBCE has no softmax to be smoothed; it would be ignored in silence."""
    with pytest.raises(Exception, match="label_smoothing"):
        Bert4RecConfig(vocab_size=20, loss="gbce", label_smoothing=0.1)


SEEN = {  # of causal models a position sees itself and what is older; of masked ones the whole row
    Bert4RecForCausalLM: [[5], [5, 6], [5, 6, 5], [7]],
    Bert4RecForMaskedLM: [[5, 6, 5, 9], [5, 6, 5, 9], [5, 6, 5, 9], [7]],
}
UNSEEN = [
    {"loss": "full"},
    {"loss": "chunked"},
    {"loss": "chunked", "loss_chunk_size": 30},
    {"loss": "sampled_softmax", "num_negatives": 17},  # each item once: the exact softmax
    {"loss": "sampled_softmax", "num_negatives": 17, "num_hard_negatives": 4},
    {"loss": "sampled_softmax", "num_negatives": 3, "num_hard_negatives": 17},
]


@pytest.mark.parametrize("kind", list(SEEN))
@pytest.mark.parametrize("options", UNSEEN)
def test_items_of_the_history_do_not_compete(kind: Any, options: dict[str, Any]) -> None:
    """By hand: a softmax over what a filtered ranking could give and the target, which may be an item seen before."""
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "hidden_dropout_prob": 0.0}
    model = kind(Bert4RecConfig(**shape, **options, loss_candidates="unseen")).train()
    batch = {
        "input_ids": torch.tensor([[5, 6, 5, 9], [0, 0, 7, 1]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]]),
        "labels": torch.tensor([[6, 5, 9, -100], [-100, -100, 2, 19]]),  # 5 again, and an unknown item
    }
    scores = model.eval()(**batch).logits[[0, 1, 2, 4]]
    plain = F.cross_entropy(scores[:, 3:], torch.tensor([3, 2, 6, 16]))
    torch.testing.assert_close(model(**batch).loss, plain)  # evaluation measures what it always did
    targets = [6, 5, 9, 19]
    rivals = torch.tensor(
        [
            [token > 2 and (token == target or token not in seen) for token in range(20)]
            for seen, target in zip(SEEN[kind], targets, strict=True)
        ]
    )
    expected = F.cross_entropy(scores.masked_fill(~rivals, -math.inf), torch.tensor(targets))
    gradient = torch.autograd.grad(expected, list(model.parameters()))
    model.train()
    found = model(**batch).loss
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, list(model.parameters())), gradient, strict=True):
        torch.testing.assert_close(one, other)
    model.config.filter_seen = False  # a model that recommends seen items learns to rank them
    torch.testing.assert_close(model(**batch).loss, plain)


def test_drawn_negatives_of_the_history_do_not_compete() -> None:
    """With replacement an item may be drawn twice, and the target is among the negatives of other rows."""
    scores = torch.arange(10.0).view(2, 5)
    candidates = Candidates(torch.zeros(2), torch.tensor([3, 4]), scores, torch.tensor([7, 3, 7, 4, 9]))
    found = candidates.without(torch.tensor([[7, 5, 3], [4, 9, 19]])).negatives
    hidden = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]).bool()
    assert torch.equal(found, scores.masked_fill(hidden, -math.inf))


def test_embeddings_do_not_say_what_was_seen() -> None:
    """A loss over other items than asked for would be taken in silence."""
    model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=20, hidden_size=8, loss_candidates="unseen")).train()
    with pytest.raises(ValueError, match="input_ids"):
        model(inputs_embeds=torch.zeros(1, 2, 8), labels=torch.tensor([[-100, 5]]))
