"""Scores of separate objects: what was found, what was made up, and how well nuclei are told apart.

Objects are given as a bool mask, whose connected parts are taken one by one (neighbours across corners are connected),
or as an integer label map: 0 is background, every other value one object, in as many parts as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

from unibiomed.errors import InputError


def label_instances(objects: np.ndarray) -> np.ndarray:
    """Label map of a mask's connected parts; a label map is given back as it is.

    Parameters
    ----------
    objects : np.ndarray
        2D or 3D; bool, or integer labels of 0 and more.

    Returns
    -------
    np.ndarray
        Integers of the same shape, 0 outside.

    Raises
    ------
    InputError
        If it is neither, or holds negative labels. Numbers with fractions are refused: whether they are a mask or
        labels cannot be told.
    """
    array = np.asarray(objects)
    if array.dtype == bool:
        # corners connect: two halves of a nucleus that touch at a corner are one nucleus
        return ndimage.label(array, structure=np.ones((3,) * array.ndim, bool))[0]
    if array.dtype.kind not in "iu":
        raise InputError("objects are given as a bool mask or as an integer label map")
    if array.size and array.min() < 0:
        raise InputError("the label map holds negative labels; 0 is background, objects are 1 and more")
    return array


@dataclass(frozen=True, slots=True)
class Detection:
    """What was found in one image: counts of objects."""

    hits: int
    truths: int
    false_masks: int
    masks: int


def detect(prediction: np.ndarray, truth: np.ndarray, *, threshold: float | None = None) -> Detection:
    """Count the true objects that were hit, and the predicted ones that hit nothing.

    Parameters
    ----------
    prediction, truth : np.ndarray
        A bool mask or an integer label map each, of one shape. To take a target as one object whatever its parts, give
        ``mask.astype(int)``.
    threshold : float, optional
        IoU in (0, 1] from which a predicted object hits a true one; each hits one at most, and as many are matched as
        can be. Without it any shared pixel is a hit, and one predicted object may hit several.

    Raises
    ------
    InputError
        If the shapes differ, or the objects or the threshold cannot be used.
    """
    if threshold is not None and not 0 < threshold <= 1:
        raise InputError(f"the IoU threshold is {threshold}; give a number above 0, at most 1")
    table = _Table.of(prediction, truth)
    if threshold is None:
        hits, hitting = np.unique(table.g).size, np.unique(table.p).size
    else:
        good = table.iou >= threshold
        pairs = (np.ones(int(good.sum()), np.int8), (table.g[good], table.p[good]))
        graph = csr_array(pairs, shape=(table.true.size, table.predicted.size))
        hits = hitting = int((maximum_bipartite_matching(graph, perm_type="column") >= 0).sum())
    return Detection(hits, table.true.size, table.predicted.size - hitting, table.predicted.size)


def detection_rate(detections: Iterable[Detection]) -> float:
    """Share of all true objects that were hit, in [0, 1]; NaN where there are none."""
    found = list(detections)
    truths = sum(one.truths for one in found)
    return sum(one.hits for one in found) / truths if truths else float("nan")


def false_masks_per_image(detections: Iterable[Detection]) -> float:
    """Mean number of predicted objects an image that hit nothing, 0 or more; NaN for no images."""
    counts = [one.false_masks for one in detections]
    return sum(counts) / len(counts) if counts else float("nan")


def aggregated_jaccard(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Aggregated Jaccard index of nuclei, in [0, 1] (Kumar et al., 2017).

    Every true object is taken with the predicted one of the highest IoU; shared pixels are added up and divided by the
    united ones, to which true objects that nothing touches and predicted ones that nothing chose are added whole. As
    in the paper, a predicted object may be chosen more than once.

    Parameters
    ----------
    prediction, truth : np.ndarray
        A bool mask or an integer label map each, of one shape.

    Returns
    -------
    float
        1 where both are empty, 0 where one is.

    Raises
    ------
    InputError
        If the shapes differ, or the objects cannot be used.
    """
    table = _Table.of(prediction, truth)
    if not table.true.size and not table.predicted.size:
        return 1.0
    order = np.lexsort((table.p, -table.iou, table.g))
    touched, first = np.unique(table.g[order], return_index=True)
    best = order[first]
    shared = table.shared[best].sum()
    united = table.union[best].sum()
    united += np.delete(table.true, touched).sum() + np.delete(table.predicted, np.unique(table.p[best])).sum()
    return float(shared / united)


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Counts behind the panoptic quality; the sum of two images' is that of both (Kirillov et al., 2019)."""

    matched: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    iou_sum: float = 0.0

    @property
    def segmentation_quality(self) -> float:
        """SQ, mean IoU of the matched objects, in (0.5, 1]; 0 where none is matched, 1 where there are no objects."""
        return self.iou_sum / self.matched if self.matched else float(not self._objects)

    @property
    def recognition_quality(self) -> float:
        """RQ, the F1 of finding objects, in [0, 1]; 1 where there are no objects."""
        return self.matched / self._objects if self._objects else 1.0

    @property
    def quality(self) -> float:
        """PQ = SQ · RQ, in [0, 1]; 1 where there are no objects."""
        return self.iou_sum / self._objects if self._objects else 1.0

    @property
    def _objects(self) -> float:
        return self.matched + (self.false_positives + self.false_negatives) / 2

    def __add__(self, other: Panoptic) -> Panoptic:
        return Panoptic(
            self.matched + other.matched,
            self.false_positives + other.false_positives,
            self.false_negatives + other.false_negatives,
            self.iou_sum + other.iou_sum,
        )


def panoptic(prediction: np.ndarray, truth: np.ndarray) -> Panoptic:
    """Match the objects of one image and class whose IoU is above 0.5; no object can have two such.

    Parameters
    ----------
    prediction, truth : np.ndarray
        A bool mask or an integer label map each, of one shape.

    Returns
    -------
    Panoptic
        Has ``quality``, ``segmentation_quality`` and ``recognition_quality``; over a data set, add the images up.

    Raises
    ------
    InputError
        If the shapes differ, or the objects cannot be used.
    """
    table = _Table.of(prediction, truth)
    good = table.iou > 0.5
    matched = int(good.sum())
    return Panoptic(matched, table.predicted.size - matched, table.true.size - matched, float(table.iou[good].sum()))


@dataclass(frozen=True, slots=True)
class _Table:
    """The pairs of objects that share pixels: indices into both lists of areas, and how many pixels."""

    true: np.ndarray  # (true objects,) areas
    predicted: np.ndarray  # (predicted objects,) areas
    g: np.ndarray  # (pairs,) index into `true`
    p: np.ndarray  # (pairs,) index into `predicted`
    shared: np.ndarray  # (pairs,) pixels

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> _Table:
        predicted, true = label_instances(prediction), label_instances(truth)
        if predicted.shape != true.shape:
            raise InputError(
                f"the prediction has shape {predicted.shape}, the truth {true.shape}; both must be of one shape"
            )
        names_g, area_g = np.unique(true[true > 0], return_counts=True)
        names_p, area_p = np.unique(predicted[predicted > 0], return_counts=True)
        both = (true > 0) & (predicted > 0)
        g, p = np.searchsorted(names_g, true[both]), np.searchsorted(names_p, predicted[both])
        pairs, shared = np.unique(np.stack([g, p]), axis=1, return_counts=True)
        return cls(area_g, area_p, pairs[0], pairs[1], shared)

    @property
    def union(self) -> np.ndarray:
        return self.true[self.g] + self.predicted[self.p] - self.shared

    @property
    def iou(self) -> np.ndarray:
        return self.shared / self.union
