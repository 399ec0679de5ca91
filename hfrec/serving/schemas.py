"""Bodies of requests and answers."""

from __future__ import annotations

import time
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


def _request(*examples: dict[str, Any]) -> ConfigDict:
    """Unknown fields are refused, since a misspelt filter would be ignored; numbers as ids become texts."""
    return ConfigDict(extra="forbid", coerce_numbers_to_str=True, json_schema_extra={"examples": list(examples)})


class FilteredRequest(BaseModel):
    """Which items a list may hold."""

    top_k: int = Field(10, ge=1, description="Items a list.")
    allow: list[str] | None = Field(None, description="Only these items.")
    deny: list[str] | None = Field(None, description="None of these items.")
    categories: list[str] | None = Field(None, description="Only items of one of these categories.")


class RecommendRequest(FilteredRequest):
    """Whom to recommend to: histories, or users of the store."""

    model_config = _request(
        {"histories": [["50", "181"], []], "top_k": 5},
        {"user_ids": ["anna"], "top_k": 5, "deny": ["50"]},
    )
    histories: list[list[str]] | None = Field(
        None, description="Item ids of each user, oldest first; an empty one gets what is popular."
    )
    user_ids: list[str] | None = Field(None, description="Users whose histories the store has.")
    filter_seen: bool | None = Field(None, description="Leave out the history's items; null does as the model says.")
    unknown_items: Literal["drop", "error", "unk"] = Field(
        "drop", description="What becomes of items that the model does not know; the answer counts them."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> RecommendRequest:
        if (self.histories is None) == (self.user_ids is None):
            raise ValueError("give either `histories` or `user_ids`")
        return self


class SimilarRequest(FilteredRequest):
    """Items to start from."""

    model_config = _request({"items": ["50"], "top_k": 5})
    items: list[str] = Field(description="Item ids.")


class EventIn(BaseModel):
    """A user met an item."""

    model_config = _request()
    event_id: str = Field(min_length=1, max_length=256, description="The same id again changes nothing.")
    user_id: str = Field(min_length=1, max_length=256)
    item_id: str = Field(min_length=1, max_length=1024)
    timestamp: float = Field(
        default_factory=time.time, allow_inf_nan=False, description="Seconds since 1970; now when left out."
    )


class EventsRequest(BaseModel):
    """Events to keep, all or none of them."""

    model_config = _request(
        {"events": [{"event_id": "e-1", "user_id": "anna", "item_id": "50", "timestamp": 1714000000}]}
    )
    events: list[EventIn] = Field(min_length=1)


class ReloadRequest(BaseModel):
    """The model to go over to; what is left out stays as it is."""

    model_config = _request({}, {"model_name_or_path": "exported-new"}, {"revision": "v2"})
    model_name_or_path: str | None = None
    revision: str | None = None


class Item(BaseModel):
    """An item of a list."""

    item_id: str
    score: float
    rank: int
    title: str | None = None


class RecommendAnswer(BaseModel):
    """A list for each history, in the order of the request."""

    recommendations: list[list[Item]]
    unknown_items: list[int] = Field(description="Items of each history that the model does not know.")
    model_version: str


class SimilarAnswer(BaseModel):
    """A list for each item, in the order of the request."""

    similar: list[list[Item]]
    model_version: str


class Hit(BaseModel):
    """An item that was searched for."""

    item_id: str
    title: str | None


class ItemsAnswer(BaseModel):
    """Items found, best first."""

    items: list[Hit]
    model_version: str


class EventsAnswer(BaseModel):
    """What became of the events."""

    accepted: int = Field(description="New events.")
    duplicates: int = Field(description="Events that were there already.")


class ModelAnswer(BaseModel):
    """The model that serves."""

    model_name_or_path: str
    model_version: str
    kind: Literal["onnx", "pytorch"]
    num_items: int
