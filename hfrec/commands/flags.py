"""The flags of the commands whose modules are slow to import, group by group, so that help need not import them.

A flag is a field of one of these classes; every other command names its classes in its own module.
"""

from __future__ import annotations

from ..data.arguments import ProtocolArguments
from ..training.arguments import (
    CardArguments,
    DataArguments,
    FinalArguments,
    FinetuneArguments,
    NewModelArguments,
    RecipeArguments,
    RefreshFinetuneArguments,
    TaskArguments,
    TrainingFlags,
    TuneArguments,
)
from ..training.refresh_arguments import RefreshArguments
from ..training.source_arguments import SourcesArguments
from .content import ContentArguments

# Of a run of `hfrec pretrain` that ends with its test.
PRETRAIN_RUN = (
    SourcesArguments,
    ProtocolArguments,
    NewModelArguments,
    ContentArguments,
    CardArguments,
    TrainingFlags,
    RecipeArguments,
)
FLAGS: dict[str, tuple[type, ...]] = {
    "pretrain": (*PRETRAIN_RUN, FinalArguments),
    "finetune": (
        DataArguments,
        ProtocolArguments,
        FinetuneArguments,
        TaskArguments,
        CardArguments,
        TrainingFlags,
        FinalArguments,
    ),
    "refresh": (DataArguments, RefreshFinetuneArguments, RefreshArguments, CardArguments, TrainingFlags),
    "tune": (*PRETRAIN_RUN, TuneArguments),
}
