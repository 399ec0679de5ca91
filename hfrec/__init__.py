"""hfrec: sequential recommendation with Hugging Face models, pretrained on large logs and fine-tuned with L2-SP."""

from importlib import import_module
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .inference.pipeline import CheckpointLoader, RecommendationPipeline
from .models import (
    Bert4RecConfig,
    Bert4RecForCausalLM,
    Bert4RecForMaskedLM,
    Bert4RecForSequenceClassification,
    Bert4RecModel,
    Blend,
    BlendConfig,
)
from .tokenization import ItemTokenizer

__version__ = "0.1.0"

_LAZY = {
    "ContentSpecification": "transfer.specification",
    "DataCollatorForMaskedItems": "data.collators",
    "DataCollatorForNextItem": "data.collators",
    "EASEBaseline": "classical",
    "HubError": "hub.errors",
    "GradualUnfreezingCallback": "training.freezing",
    "InteractionStream": "data.streams",
    "Interactions": "data.interactions",
    "ItemIndex": "inference.index",
    "ItemKNNBaseline": "classical",
    "L2SPCallback": "training.l2sp",
    "MarkovBaseline": "classical",
    "OnnxRecommender": "inference.serving",
    "PopularityBaseline": "classical",
    "PushWatchCallback": "training.pushes",
    "RecentPopularityBaseline": "classical",
    "SequenceShards": "data.shards",
    "Split": "data.splits",
    "StreamedBatches": "data.shards",
    "TitleIndex": "data.titles",
    "add_items": "transfer.vocabulary",
    "adopt_catalogue": "transfer.adoption",
    "align_catalogue": "transfer.vocabulary",
    "category_vectors": "transfer.content",
    "compare_ranks": "evaluation.compare",
    "concatenate_interactions": "data.interactions",
    "content_features": "transfer.specification",
    "content_rows": "transfer.content",
    "describe_content": "transfer.specification",
    "export_onnx": "inference.export",
    "freeze": "training.freezing",
    "join_features": "transfer.content",
    "layerwise_learning_rates": "training.freezing",
    "leakage_audit": "data.splits",
    "feature_rows": "transfer.features",
    "fit_prior": "evaluation.cold_users",
    "load_checkpoint": "hub.checkpoint",
    "match_titles": "transfer.matching",
    "plan_catalogue": "transfer.matching",
    "rank_baseline": "evaluation",
    "rank_dataset": "evaluation",
    "ranking_metrics": "evaluation",
    "set_item_features": "transfer.features",
    "synthetic_tables": "data.catalogs",
    "text_vectors": "transfer.content",
    "unit_features": "transfer.features",
    "given_vectors": "transfer.content",
    "hold_out_users": "data.splits",
    "last_n": "data.splits",
    "leave_one_out": "data.splits",
    "load_prior": "inference.prior",
    "load_interactions": "data.interactions",
    "paired_bootstrap": "evaluation",
    "pull_from_hub": "hub.pull",
    "push_to_hub": "hub.push",
    "recommend": "inference.recommend",
    "remove_items": "transfer.vocabulary",
    "rename_items": "transfer.vocabulary",
    "similar_items": "inference.similar",
    "split_by_time": "data.splits",
    "split_sessions": "data.sessions",
    "temporal_split": "data.temporal",
    "to_evaluation_sequences": "data.sequences",
    "to_sequences": "data.sequences",
    "tune": "evaluation.tuning",
    "write_model_card": "hub.model_card",
}

__all__ = [
    "Bert4RecConfig",
    "Bert4RecForCausalLM",
    "Bert4RecForMaskedLM",
    "Bert4RecForSequenceClassification",
    "Bert4RecModel",
    "Blend",
    "BlendConfig",
    "ItemTokenizer",
    "RecommendationPipeline",
    "__version__",
    *sorted(_LAZY),
]

AutoConfig.register("bert4rec", Bert4RecConfig, exist_ok=True)
AutoConfig.register("hfrec_blend", BlendConfig, exist_ok=True)
AutoModel.register(Bert4RecConfig, Bert4RecModel, exist_ok=True)
AutoModel.register(BlendConfig, Blend, exist_ok=True)
AutoModelForMaskedLM.register(Bert4RecConfig, Bert4RecForMaskedLM, exist_ok=True)
AutoModelForCausalLM.register(Bert4RecConfig, Bert4RecForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(Bert4RecConfig, Bert4RecForSequenceClassification, exist_ok=True)

PIPELINE_REGISTRY.register_pipeline("recommendation", RecommendationPipeline, pt_model=CheckpointLoader)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
