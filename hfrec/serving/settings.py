"""What `hfrec serve` is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

TOKEN_VARIABLE = "HFREC_SERVE_TOKEN"  # a flag would stand in the list of processes


@dataclass
class ServeArguments:
    """The model, where to listen, the limits of a request, batching, and where histories are kept."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path",)

    model_name_or_path: str = field(metadata={"help": "Output of hfrec export, a checkpoint folder, or a hub id."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})
    int8: bool = field(default=False, metadata={"help": "The quantised graph of an export."})
    num_threads: int = field(default=1, metadata={"help": "Threads of one call of the model."})
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; 0.0.0.0 is all of them."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0 takes a free one and prints it."})
    history_store: str = field(
        default="sqlite:///histories.db",
        metadata={"help": "Where histories of users are kept: sqlite:///FILE, redis://HOST:PORT/DB, or none."},
    )
    watch_seconds: float = field(
        default=0.0, metadata={"help": "Ask the hub this often whether the revision has moved, and swap; 0 never."}
    )
    category_column: str | None = field(
        default=None, metadata={"help": "Column that categories filters; category or genres where there is one."}
    )
    max_top_k: int = field(default=100, metadata={"help": "Most items a list."})
    max_history: int = field(default=1000, metadata={"help": "Longest history; of a stored one the newest items."})
    max_histories: int = field(default=256, metadata={"help": "Most histories, items or events a request."})
    max_body_bytes: int = field(default=1_000_000, metadata={"help": "Largest request."})
    max_batch_size: int = field(default=64, metadata={"help": "Histories that are scored together."})
    max_queue: int = field(default=1024, metadata={"help": "Histories that may wait; beyond it the answer is 503."})
    drain_seconds: float = field(
        default=1.0, metadata={"help": "After SIGTERM, go on serving this long while /readyz says 503."}
    )
    shutdown_seconds: float = field(default=30.0, metadata={"help": "Longest wait for running requests at the end."})

    def __post_init__(self) -> None:
        for name in ("num_threads", "max_top_k", "max_history", "max_histories", "max_body_bytes", "max_batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        for name in ("watch_seconds", "drain_seconds", "shutdown_seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be below 0, found {getattr(self, name)}.")
        if self.max_queue < self.max_histories:
            raise ValueError(
                f"`max_queue` ({self.max_queue}) must hold one request of `max_histories` ({self.max_histories}): "
                "raise the one or lower the other."
            )
        if not 0 <= self.port <= 65535:
            raise ValueError(f"`port` must lie between 0 and 65535, found {self.port}.")
