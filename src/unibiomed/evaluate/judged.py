"""What the scores that a model gives itself are worth: of presence, and of the mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy.special import digamma

from unibiomed.metrics.calibration import reliability

from .intervals import estimate_of
from .rows import Row

__all__ = ["presence_auroc", "score_tables", "told_presence"]

BINS = 10
"""Of equal width, for the calibration error."""


def score_tables(rows: Sequence[Row]) -> dict[str, Any]:
    """How much the scores of masks are worth.

    Parameters
    ----------
    rows : sequence of Row
        Of ``segment``.

    Returns
    -------
    dict
        ``presence`` and ``presence_own``, the latter without targets of other body parts: ``auroc``,
        ``calibration_error``, ``reliability``; a failure counts as surely wrong. ``mask``: ``calibration_error`` of
        masks whose target is there. ``risk``: ``aurc`` of all masks of own targets, the surest first; only with a score
        of either kind. What is given the box of the truth has neither of presence nor of ``risk``.
    """
    own = [row for row in rows if row.kind != "foreign" and not row.boxed]
    out: dict[str, Any] = {}
    scored = any(row.presence is not None for row in rows)
    for name, part in (("presence", rows), ("presence_own", own)):
        # failures alone tell nothing of scores
        known = [row for row in part if scored and row.there is not None and told_presence(row) is not None]
        if len({row.there for row in known}) == 2:
            presence, there = [told_presence(row) or 0.0 for row in known], [bool(row.there) for row in known]
            subjects = [row.subject for row in known]
            out[name] = {
                "auroc": presence_auroc(presence, there, subjects),
                "calibration_error": _calibration_error(presence, there, subjects),
                "count": len(known),
                "reliability": [
                    [round(one.score, 6), round(one.truth, 6), one.count]
                    for one in reliability(presence, there, BINS)
                    if one.count
                ],
            }
    overlap = [row for row in rows if row.there and row.mask_score is not None]
    if overlap:
        scores, truths = [row.mask_score or 0.0 for row in overlap], [row.iou for row in overlap]
        subjects = [row.subject for row in overlap]
        out["mask"] = {"calibration_error": _calibration_error(scores, truths, subjects), "count": len(overlap)}
    if any(row.presence is not None or row.mask_score is not None for row in own):
        # of all masks, the empty and the failed ones too: what is lost when only the surest are kept
        losses, subjects = [1 - row.dice for row in own], [row.subject for row in own]
        out["risk"] = {"aurc": _risk_area([row.sureness for row in own], losses, subjects), "count": len(own)}
    return out


def told_presence(row: Row) -> float | None:
    """The presence score of a row; a failure is surely wrong, None of other rows that have none."""
    return float(not row.there) if row.failure is not None else row.presence


def presence_auroc(scores: Sequence[float], there: Sequence[bool], subjects: Sequence[str]) -> dict[str, Any]:
    """The AUROC of presence with its interval, ready for JSON; both kinds of images are needed."""
    order = np.argsort(scores, kind="stable")
    score, true = np.asarray(scores, float)[order], np.asarray(there, float)[order]
    ties = np.flatnonzero(np.diff(score, prepend=-np.inf))

    def drawn(often: np.ndarray) -> np.ndarray:
        often = often[:, order]
        hits = np.add.reduceat(often * true, ties, axis=1)
        misses = np.add.reduceat(often * (1 - true), ties, axis=1)
        # a tie is half right
        right = (hits * (misses.cumsum(1) - misses / 2)).sum(1)
        pairs = hits.sum(1) * misses.sum(1)
        found: np.ndarray = np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)
        return found

    return estimate_of(drawn, subjects).to_dict()


def _risk_area(sureness: Sequence[float], losses: Sequence[float], subjects: Sequence[str]) -> dict[str, Any]:
    """That of `unibiomed.metrics.risk_coverage`, with its interval."""
    return estimate_of(partial(_areas, np.asarray(sureness, float), np.asarray(losses, float)), subjects).to_dict()


def _areas(sureness: np.ndarray, losses: np.ndarray, often: np.ndarray) -> np.ndarray:
    """Areas under the curves of risk and coverage, where each image counts so often: (draws, images) to (draws,)."""
    order = np.argsort(-sureness, kind="stable")
    often, ties = often[:, order], np.flatnonzero(np.diff(sureness[order], prepend=np.inf))
    size, lost = np.add.reduceat(often, ties, axis=1), np.add.reduceat(often * losses[order], ties, axis=1)
    before, lost_before = size.cumsum(1) - size, lost.cumsum(1) - lost
    mean = np.divide(lost, size, out=np.zeros_like(lost), where=size > 0)
    # of images as sure as each other the sum over j = 1 to size of (lost_before + j * mean) / (before + j)
    sums = size * mean + (lost_before - before * mean) * (digamma(before + size + 1) - digamma(before + 1))
    areas: np.ndarray = sums.sum(1) / size.sum(1)
    return areas


def _calibration_error(scores: Sequence[float], truths: Sequence[float], subjects: Sequence[str]) -> dict[str, Any]:
    """That of `unibiomed.metrics.calibration`, with its interval."""
    score = np.asarray(scores, float)
    gaps = np.zeros((len(score), BINS))
    gaps[np.arange(len(score)), np.minimum((score * BINS).astype(int), BINS - 1)] = score - np.asarray(truths, float)

    def drawn(often: np.ndarray) -> np.ndarray:
        error: np.ndarray = np.abs(often @ gaps).sum(1) / often.sum(1)
        return error

    return estimate_of(drawn, subjects, centred=True).to_dict()
