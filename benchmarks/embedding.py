"""The cost of a built-in embedding model, for `retrieval.py`; a separate module, since a worker process must find the
function.
"""

from __future__ import annotations

import resource
import time

from app.knowledge.embed_local import vectors


def cost(model: str, texts: list[str]) -> tuple[float, float]:
    """In a worker, whose libraries have one thread:

    CPU seconds for the texts, and the peak memory in MB, with the model preloaded.
    """
    vectors(model, "passage", ["Once."])
    started = time.process_time()
    vectors(model, "passage", texts)
    return time.process_time() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
