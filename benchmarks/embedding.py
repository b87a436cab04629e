"""What a built-in embedding model takes, for `retrieval.py`; a module of its own, since a worker process has to find the function."""

from __future__ import annotations

import resource
import time

from app.knowledge.embed_local import vectors


def cost(model: str, texts: list[str]) -> tuple[float, float]:
    """In a worker, whose libraries have one thread: CPU seconds for the texts, and the most memory in MB, with the model loaded before."""
    vectors(model, "passage", ["Once."])
    started = time.process_time()
    vectors(model, "passage", texts)
    return time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
