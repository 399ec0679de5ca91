"""Taking a pretrained model to another catalogue."""

from .adoption import adopt_catalogue
from .content import (
    category_vectors,
    content_rows,
    fit_content_map,
    given_vectors,
    join_features,
    text_vectors,
)
from .features import feature_rows, set_item_features, unit_features
from .matching import CataloguePlan, match_titles, plan_catalogue, read_mapping
from .rows import ItemRows
from .specification import ContentSpecification, content_features, describe_content
from .vocabulary import add_items, align_catalogue, remove_items, rename_items, renamed_vocabulary

__all__ = [
    "CataloguePlan",
    "ContentSpecification",
    "ItemRows",
    "add_items",
    "adopt_catalogue",
    "align_catalogue",
    "category_vectors",
    "content_features",
    "content_rows",
    "describe_content",
    "feature_rows",
    "fit_content_map",
    "given_vectors",
    "join_features",
    "match_titles",
    "plan_catalogue",
    "read_mapping",
    "remove_items",
    "rename_items",
    "renamed_vocabulary",
    "set_item_features",
    "text_vectors",
    "unit_features",
]
