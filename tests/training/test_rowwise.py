"""Row-wise AdamW: equal to AdamW on touched rows, still elsewhere, and through the Trainer."""

from __future__ import annotations

from pathlib import Path

import pyarrow.csv
import pytest
import torch
from torch.nn import functional as F

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, set_item_features, synthetic_tables
from hfrec.training.rowwise import RowwiseAdamW
from hfrec_command import main

QUIET = ["--disable_tqdm", "true", "--early_stopping_patience", "0"]


def test_rows_that_every_batch_touches_move_as_under_adamw() -> None:
    """A wrong bias correction or decay would be a slower optimiser under AdamW's name."""
    torch.manual_seed(0)
    start, goal = torch.randn(5, 3), torch.randn(5, 3)
    lazy, plain = (torch.nn.Parameter(start.clone()) for _ in range(2))
    settings = {"lr": 0.1, "weight_decay": 0.2}
    ours, theirs = RowwiseAdamW([lazy], **settings), torch.optim.AdamW([plain], **settings)
    for _ in range(6):
        for weight, optimizer, sparse in ((lazy, ours, True), (plain, theirs, False)):
            optimizer.zero_grad()
            F.embedding(torch.tensor([0, 1, 2, 3, 4, 1]), weight, sparse=sparse).sub(
                goal[[0, 1, 2, 3, 4, 1]]
            ).square().sum().backward()
            assert (weight.grad is None) is sparse  # held by the optimiser
            optimizer.step()
    assert lazy.detach().allclose(plain.detach(), atol=1e-6)


def test_rows_that_no_batch_touches_stay_to_the_bit() -> None:
    """Decay or old moments on other rows would touch the whole table each step."""
    weight = torch.nn.Parameter(torch.randn(6, 2))
    before = weight.detach().clone()
    optimizer = RowwiseAdamW([weight], lr=0.1, weight_decay=0.5)
    for ids in ([1, 2], [2, 3]):
        optimizer.zero_grad()
        F.embedding(torch.tensor(ids), weight, sparse=True).sum().backward()
        optimizer.step()
    moved = (weight != before).all(dim=1)
    assert moved.tolist() == [False, True, True, True, False, False]
    assert weight[[0, 4, 5]].equal(before[[0, 4, 5]])


def test_clipping_counts_dense_and_sparse_gradients_together() -> None:
    """A norm of one part alone clips too little."""
    table, other = torch.nn.Parameter(torch.zeros(4, 1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = RowwiseAdamW([table, other], lr=1.0, max_grad_norm=1.0)
    (3 * F.embedding(torch.tensor([2]), table, sparse=True).sum() + 4 * other.sum()).backward()
    optimizer.step()
    assert optimizer.state[table]["exp_avg"][2].item() == pytest.approx(0.1 * 0.6, rel=1e-4)
    assert optimizer.state[other]["exp_avg"].item() == pytest.approx(0.1 * 0.8, rel=1e-4)


def test_two_backward_passes_add_up() -> None:
    """Gradient accumulation that keeps the last pass only trains on a part of the batch."""
    table = torch.nn.Parameter(torch.zeros(4, 1))
    optimizer = RowwiseAdamW([table], lr=1.0)
    for ids in ([1, 2], [2]):
        F.embedding(torch.tensor(ids), table, sparse=True).sum().backward()
    optimizer.step()
    assert optimizer.state[table]["exp_avg"].flatten().tolist() == pytest.approx([0.0, 0.1, 0.2, 0.0])


CONTENT = {"blocks": [{"kind": "vectors", "column": "image", "width": 5}]}


@pytest.mark.parametrize(
    ("loss", "representation", "hard"),
    [(loss, items, 0) for loss in ("sampled_softmax", "gbce") for items in ("id", "content+id")]
    + [("sampled_softmax", "id", 6)],
)
def test_sparse_gradients_are_the_dense_ones(loss: str, representation: str, hard: int) -> None:
    """A row left out of the sparse gradient is never trained, be it an embedding or a residual beside content."""
    torch.manual_seed(0)
    shape = {"vocab_size": 60, "hidden_size": 8, "loss": loss, "num_negatives": 16, "hidden_dropout_prob": 0.0}
    shape["num_hard_negatives"] = hard
    made_of = {} if representation == "id" else {"item_content": CONTENT, "content_adapter": "linear"}
    model = Bert4RecForCausalLM(Bert4RecConfig(**shape, item_representation=representation, **made_of)).train()
    if made_of:
        set_item_features(model, torch.randn(57, 5))
    ids = torch.randint(3, 60, (4, 6))
    gradients = []
    for sparse in (False, True):
        model.get_input_embeddings().sparse = sparse
        model.zero_grad()
        torch.manual_seed(1)
        model(input_ids=ids, labels=ids.roll(-1, 1)).loss.backward()
        gradients.append([weight.grad.to_dense() for weight in model.parameters() if weight.grad is not None])
        assert model.get_input_embeddings().weight.grad.is_sparse is model.decoder.bias.grad.is_sparse is sparse
    assert all(one.allclose(other, atol=1e-6) for one, other in zip(*gradients, strict=True))


def test_a_run_on_rows_resumes_and_refuses_what_touches_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Trainer must take the optimiser, save its moments and go on from them."""
    log, _ = synthetic_tables(num_users=40, num_items=200, num_groups=4, min_length=5, max_length=12)
    pyarrow.csv.write_csv(log, tmp_path / "log.csv")
    words = ["pretrain", "--train_file", str(tmp_path / "log.csv"), "--max_length", "10", "--hidden_size", "16", *QUIET]
    words += ["--rowwise_embeddings", "true", "--objective", "causal", "--per_device_train_batch_size", "8"]
    assert main([*words, "--output_dir", str(tmp_path / "no")]) == 1
    assert "needs `--loss sampled_softmax` or `gbce`, found 'chunked'" in capsys.readouterr().err
    words += ["--loss", "sampled_softmax", "--num_negatives", "20"]
    assert main([*words, "--num_train_epochs", "2", "--output_dir", str(tmp_path / "whole")]) == 0
    (first, second) = sorted((tmp_path / "whole").glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    resume = ["--num_train_epochs", "2", "--resume_from_checkpoint", str(first), "--output_dir", str(tmp_path / "on")]
    assert main([*words, *resume]) == 0
    states = [
        torch.load(folder / "optimizer.pt", weights_only=True) for folder in (second, tmp_path / "on" / second.name)
    ]
    for one, other in zip(*(state["state"].values() for state in states), strict=True):
        assert one["exp_avg"].equal(other["exp_avg"]) and one["step"].equal(other["step"])
