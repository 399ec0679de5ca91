"""The stock `Trainer` on a stream of batches, and on rows of several sources."""

from __future__ import annotations

from typing import Any, cast

from torch.utils.data import DataLoader

from ..data.drawing import DrawnRows
from ..data.shards import StreamedBatches
from .pushes import RecommenderTrainer


class StreamingTrainer(RecommenderTrainer):
    """The Trainer of every run, but for the loader of [`StreamedBatches`].

    accelerate would deal each process's stream among the processes once more, and fill the last step with rows of the
    first one.
    """

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches of this process, which end with the same step in all of them."""
        from accelerate.data_loader import DataLoaderShard

        # Workers that outlive an epoch would go on with its order.
        loader: DataLoader[Any] = DataLoaderShard(
            self.train_dataset,
            device=self.args.device,
            batch_size=None,
            num_workers=self.args.dataloader_num_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return loader

    def num_examples(self, dataloader: DataLoader[Any]) -> int:
        """Rows instead of batches."""
        dataset = dataloader.dataset
        return dataset.num_rows if isinstance(dataset, StreamedBatches) else super().num_examples(dataloader)


class DrawingTrainer(RecommenderTrainer):
    """The stock `Trainer`, but for the sampler of [`DrawnRows`]."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return cast(DrawnRows, rows).sampler()
