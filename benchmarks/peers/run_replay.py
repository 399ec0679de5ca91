"""RePlay 0.22: `SasRec` of its new interface for causal, `Bert4Rec` of the older one (there is no other) for masked."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common
import lightning
import numpy as np
import pandas as pd
import torch
from replay.data import FeatureHint, FeatureInfo, FeatureSchema, FeatureSource, FeatureType
from replay.data.nn import TensorFeatureInfo, TensorFeatureSource, TensorSchema

for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
SIZE, LAYERS, HEADS = 64, 2, 2


class Clock(lightning.Callback):
    """Epochs of Lightning to the clocks of the run."""

    run: common.Run

    def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
        self.run.start_epoch()

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        trainer.should_stop = self.run.end_epoch()
        module.train()


def trainer(callback: Any, **options: Any) -> lightning.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    return lightning.Trainer(
        accelerator="cpu", devices=1, enable_checkpointing=False, callbacks=[callback], **quiet, **options
    )


class Causal:
    """SasRec, fed from Parquet as its documentation does."""

    def __init__(self, options: Any, log: common.Log, folder: Path) -> None:
        from replay.data.nn import ParquetModule
        from replay.nn.lightning import LightningModule
        from replay.nn.lightning.optimizer import OptimizerFactory
        from replay.nn.sequential import SasRec
        from replay.nn.transform.template import make_default_sasrec_transforms

        self.log, self.folder, self.length = log, folder, options.length
        self.names, self.pad = np.array(log.train_items), len(log.train_items)
        self.number = {item: place for place, item in enumerate(log.train_items)}
        feature = TensorFeatureInfo(
            name="item_id",
            is_seq=True,
            padding_value=self.pad,
            cardinality=self.pad,
            embedding_dim=SIZE,
            feature_type=FeatureType.CATEGORICAL,
            feature_hint=FeatureHint.ITEM_ID,
        )
        schema = TensorSchema([feature])
        rows = [self.encode(items) for items in log.train.values()]
        pd.DataFrame({"user_id": list(log.train), "item_id": rows}).to_parquet(folder / "train.parquet")
        self.transforms = make_default_sasrec_transforms(schema)
        self.data = ParquetModule(
            train_path=str(folder / "train.parquet"),
            batch_size=options.batch,
            transforms=self.transforms,
            metadata={"train": {"item_id": {"shape": options.length + 1, "padding": self.pad}}},
        )
        self.network = SasRec.from_params(
            schema=schema,
            embedding_dim=SIZE,
            max_sequence_length=options.length,
            num_heads=HEADS,
            num_blocks=LAYERS,
            dropout=options.dropout,
            hidden_dim=None,
        )
        self.module = LightningModule(self.network, optimizer_factory=OptimizerFactory(learning_rate=options.lr))

    def encode(self, items: Sequence[int]) -> list[int]:
        return [self.number[item] for item in items if item in self.number]

    def fit(self, clock: Clock, epochs: int) -> None:
        # Without the limit, a ParquetModule that has no validation file raises KeyError("validate").
        trainer(clock, max_epochs=epochs, limit_val_batches=0).fit(self.module, datamodule=self.data)

    @torch.inference_mode()
    def bare(self, part: str, users: Sequence[int]) -> dict[int, list[int]]:
        self.network.eval()

        def score(some: Sequence[int]) -> list[list[int]]:
            seen = [self.encode(self.log.histories[part][user]) for user in some]
            tokens = torch.full((len(some), self.length), self.pad)
            for row, items in enumerate(seen):
                newest = items[-self.length :]
                tokens[row, self.length - len(newest) :] = torch.tensor(newest, dtype=torch.long)
            logits = self.network(feature_tensors={"item_id": tokens}, padding_mask=tokens != self.pad)["logits"]
            return self.names[common.top_items(logits.clone(), seen)].tolist()  # type: ignore[no-any-return]

        return common.in_batches(users, score)

    def public(self, part: str, users: Sequence[int]) -> dict[int, list[int]]:
        from replay.data.nn import ParquetModule
        from replay.nn.lightning.callback import PandasTopItemsCallback
        from replay.nn.lightning.postprocessor import SeenItemsFilter

        rows = [self.encode(self.log.histories[part][user]) for user in users]
        path = self.folder / "predict.parquet"
        pd.DataFrame({"user_id": users, "item_id": rows, "seen_ids": rows}).to_parquet(path)
        shapes: dict[str, Any] = {
            "user_id": {},
            "item_id": {"shape": self.length, "padding": self.pad},
            "seen_ids": {"shape": max(map(len, rows)), "padding": -1},
        }
        callback = PandasTopItemsCallback(
            top_k=common.TOP_K,
            query_column="user_id",
            item_column="item_id",
            rating_column="score",
            postprocessors=[SeenItemsFilter(self.pad)],
        )
        data = ParquetModule(
            predict_path=str(path),
            batch_size=common.BATCH_OF_USERS,
            metadata={"predict": shapes},
            transforms=self.transforms,
        )
        self.module.eval()
        trainer(callback, inference_mode=True).predict(self.module, datamodule=data, return_predictions=False)
        groups = callback.get_result().groupby("user_id", sort=False)["item_id"]
        return {int(user): self.names[np.asarray(list(items), dtype=int).ravel()].tolist() for user, items in groups}


class Masked:
    """Bert4Rec with tied embeddings."""

    def __init__(self, options: Any, log: common.Log, folder: Path) -> None:
        from replay.data.nn import SequenceTokenizer
        from replay.models.nn.optimizer_utils import FatOptimizerFactory
        from replay.models.nn.sequential import Bert4Rec
        from replay.models.nn.sequential.bert4rec import Bert4RecPredictionDataset, Bert4RecTrainingDataset
        from torch.utils.data import DataLoader

        self.log = log
        source = TensorFeatureSource(FeatureSource.INTERACTIONS, "item_id")
        feature = TensorFeatureInfo(
            name="item_id_seq",
            is_seq=True,
            feature_type=FeatureType.CATEGORICAL,
            feature_hint=FeatureHint.ITEM_ID,
            embedding_dim=SIZE,
            feature_sources=[source],
        )
        schema = TensorSchema(feature)
        known = set(log.train_items)
        train = self.dataset(log.train)
        self.tokenizer = SequenceTokenizer(schema, allow_collect_to_master=True)
        self.tokenizer.fit(train)
        self.sequences = {
            part: self.tokenizer.transform(
                self.dataset({user: [item for item in items if item in known] for user, items in histories.items()})
            )
            for part, histories in log.histories.items()
        }
        rows = Bert4RecTrainingDataset(
            self.tokenizer.transform(train), max_sequence_length=options.length, mask_prob=0.2
        )
        self.loader = DataLoader(rows, batch_size=options.batch, shuffle=True)
        self.module = Bert4Rec(
            schema,
            block_count=LAYERS,
            head_count=HEADS,
            max_seq_len=options.length,
            hidden_size=SIZE,
            dropout_rate=options.dropout,
            enable_embedding_tying=True,
            loss_type=options.masked_loss,
            optimizer_factory=FatOptimizerFactory(learning_rate=options.lr),
        )
        self.number = self.tokenizer.item_id_encoder.mapping["item_id"]
        self.names = np.array(sorted(self.number, key=self.number.__getitem__))
        self.user_number = self.tokenizer.query_id_encoder.mapping["user_id"]
        self.user_names = {number: user for user, number in self.user_number.items()}
        self.prompts = {
            part: Bert4RecPredictionDataset(sequences, max_sequence_length=options.length)
            for part, sequences in self.sequences.items()
        }
        self.places = {
            part: {self.user_names[sequences.get_query_id(row)]: row for row in range(len(sequences))}
            for part, sequences in self.sequences.items()
        }

    def dataset(self, sequences: dict[int, list[int]]) -> Any:
        from replay.data import Dataset

        schema = FeatureSchema(
            [
                FeatureInfo("user_id", FeatureType.CATEGORICAL, FeatureHint.QUERY_ID),
                FeatureInfo("item_id", FeatureType.CATEGORICAL, FeatureHint.ITEM_ID),
                FeatureInfo("timestamp", FeatureType.NUMERICAL, FeatureHint.TIMESTAMP),
            ]
        )
        frame = pd.DataFrame(self.log.columns(sequences))
        return Dataset(feature_schema=schema, interactions=frame, check_consistency=False, categorical_encoded=False)

    def fit(self, clock: Clock, epochs: int) -> None:
        trainer(clock, max_epochs=epochs, limit_val_batches=0).fit(self.module, train_dataloaders=self.loader)

    @torch.inference_mode()
    def bare(self, part: str, users: Sequence[int]) -> dict[int, list[int]]:
        from torch.utils.data import default_collate

        self.module.eval()

        def score(some: Sequence[int]) -> list[list[int]]:
            histories = [self.log.histories[part][user] for user in some]
            seen = [[self.number[item] for item in items if item in self.number] for items in histories]
            prompts = default_collate([self.prompts[part][self.places[part][user]] for user in some])
            best = common.top_items(self.module.predict(prompts).clone(), seen)
            return self.names[best].tolist()  # type: ignore[no-any-return]

        return common.in_batches(users, score)

    def public(self, part: str, users: Sequence[int]) -> dict[int, list[int]]:
        from replay.models.nn.sequential.callbacks import PandasPredictionCallback
        from replay.models.nn.sequential.postprocessors import RemoveSeenItems
        from torch.utils.data import DataLoader, Subset

        callback = PandasPredictionCallback(
            top_k=common.TOP_K,
            query_column="user_id",
            item_column="item_id",
            rating_column="score",
            postprocessors=[RemoveSeenItems(self.sequences[part])],
        )
        rows = Subset(self.prompts[part], [self.places[part][user] for user in users])
        self.module.eval()
        trainer(callback, inference_mode=True).predict(
            self.module, dataloaders=DataLoader(rows, batch_size=common.BATCH_OF_USERS), return_predictions=False
        )
        groups = callback.get_result().groupby("user_id", sort=False)["item_id"]
        return {self.user_names[int(user)]: self.names[items.to_numpy().astype(int)].tolist() for user, items in groups}


def main() -> None:
    # CE_restricted is its cheap exact loss: scores at the masked positions only. Its default, CE, scores all slots.
    options = common.parse_options(__doc__.splitlines()[0], masked_loss="CE_restricted")
    log = common.Log(options.data)
    lightning.seed_everything(options.seed, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        model = (Causal if options.model == "causal" else Masked)(options, log, Path(folder))
        run = common.Run("replay", options, log, model.bare, model.public)
        clock = Clock()
        clock.run = run
        model.fit(clock, options.epochs)
        some = list(log.targets["test"])[:40]
        found, public = model.bare("test", some), model.public("test", some)
        run.finish(sequences=len(log.train), public_equals_bare=sum(found[user] == public[user] for user in some) / 40)


if __name__ == "__main__":
    main()
