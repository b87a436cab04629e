"""One ranking from two, by meaning and by words, fused by rank (reciprocal rank fusion, Cormack et al. 2009)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.knowledge.ports.passages import Hit

_DAMPING = 60
"""The paper's constant: how little the first ranks differ."""

_SHARED = 3
"""A passage that shares a third with a better neighbour, its end or its beginning, adds too little to it."""
_LEAST_SHARED = 20
"""Characters; fewer may be equal by chance."""


def fuse(rankings: Sequence[tuple[Sequence[tuple[int, float]], float]]) -> dict[int, float]:
    """Score of everything ranked, best first, from rankings (best first, each entry with its own score) and their
    weights.

    The score is the sum of weight / (60 + rank), relative to that of an entry ranked first everywhere, which is 1. Ties
    in a ranking share their rank.
    """
    total = sum(weight for _, weight in rankings)
    scores: dict[int, float] = {}
    for order, weight in rankings:
        rank, last = 0, None
        for place, (one, score) in enumerate(order, 1):
            if score != last:
                rank, last = place, score
            scores[one] = scores.get(one, 0.0) + weight / total * (_DAMPING + 1) / (_DAMPING + rank)
    return dict(sorted(scores.items(), key=lambda scored: -scored[1]))


def choose(hits: Iterable[Hit], limit: int) -> list[Hit]:
    """The first `limit` hits, without those that mostly repeat a better neighbour in the same file."""
    chosen: list[Hit] = []
    near: dict[tuple[str, str, int], Hit] = {}
    for hit in hits:
        place = (hit.vector_store_id, hit.file_id)
        before, after = near.get((*place, hit.position - 1)), near.get((*place, hit.position + 1))
        if (before and _runs_into(before.text, hit.text)) or (after and _runs_into(hit.text, after.text)):
            continue
        chosen.append(hit)
        near[*place, hit.position] = hit
        if len(chosen) == limit:
            break
    return chosen


def _runs_into(earlier: str, later: str) -> bool:
    shared = max(len(earlier) // _SHARED, _LEAST_SHARED)
    return earlier[-shared:] in later
