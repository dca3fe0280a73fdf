"""Metrics of objects: detection, aggregated Jaccard index and panoptic quality.

Objects are given as a bool mask, whose connected components are the objects (diagonal neighbours are connected), or as
an integer label map, in which 0 is background and every other value is one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from unibiomed.errors import InputError


def label_instances(objects: np.ndarray) -> np.ndarray:
    """Convert a mask to a label map of its connected components; a label map is returned unchanged.

    Parameters
    ----------
    objects : np.ndarray
        2D or 3D; bool, or non-negative integer labels.

    Returns
    -------
    np.ndarray
        Integers of the same shape.

    Raises
    ------
    InputError
        The type is neither bool nor integer, or there are negative labels. Floating-point arrays are refused because
        it is not clear whether they are masks or labels.
    """
    array = np.asarray(objects)
    if array.dtype == bool:
        # full connectivity, so that parts of a nucleus that touch at a corner are one object
        return ndimage.label(array, structure=np.ones((3,) * array.ndim, bool))[0]
    if array.dtype.kind not in "iu":
        raise InputError("objects have the wrong type: give a bool mask or an integer label map")
    if array.size and array.min() < 0:
        raise InputError("the label map has negative labels: use 0 for background and positive numbers for objects")
    return array


@dataclass(frozen=True, slots=True)
class Detection:
    """Numbers of objects in one image.

    Parameters
    ----------
    hits, truths : int
        True objects that intersect a predicted object, and all true objects.
    false_masks, masks : int
        Predicted objects that intersect no true object, and all predicted objects.
    """

    hits: int
    truths: int
    false_masks: int
    masks: int


def detect(prediction: np.ndarray, truth: np.ndarray) -> Detection:
    """Count true objects that are hit and predicted objects that hit nothing; any common pixel is a hit.

    Parameters
    ----------
    prediction, truth : np.ndarray
        Bool mask or integer label map, of the same shape. Use ``mask.astype(int)`` to treat a mask as one object.

    Raises
    ------
    InputError
        The shapes differ, or the objects are invalid.
    """
    table = _ObjectPairs.of(prediction, truth)
    hits, hitting = np.unique(table.g).size, np.unique(table.p).size
    return Detection(hits, table.true.size, table.predicted.size - hitting, table.predicted.size)


def aggregated_jaccard(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Compute the aggregated Jaccard index of nuclei, in [0, 1] (Kumar et al., 2017).

    Every true object is paired with the predicted object of the highest IoU. The index is the sum of their
    intersections divided by the sum of their unions, to which unpaired true and predicted objects are added. As in the
    paper, a predicted object can be paired more than once.

    Parameters
    ----------
    prediction, truth : np.ndarray
        Bool mask or integer label map, of the same shape.

    Returns
    -------
    float
        1 if both are empty, 0 if one is empty.

    Raises
    ------
    InputError
        The shapes differ, or the objects are invalid.
    """
    table = _ObjectPairs.of(prediction, truth)
    if not table.true.size and not table.predicted.size:
        return 1.0
    order = np.lexsort((table.p, -table.iou, table.g))
    paired, first = np.unique(table.g[order], return_index=True)
    best = order[first]
    intersection = table.intersection[best].sum()
    union = table.union[best].sum()
    union += np.delete(table.true, paired).sum() + np.delete(table.predicted, np.unique(table.p[best])).sum()
    return float(intersection / union)


@dataclass(frozen=True, slots=True)
class Panoptic:
    """Counts of the panoptic quality (Kirillov et al., 2019). The sum of two is that of both images."""

    matched: int = 0
    false_positives: int = 0
    false_negatives: int = 0
    iou_sum: float = 0.0

    @property
    def segmentation_quality(self) -> float:
        """SQ, the mean IoU of matched objects, in (0.5, 1]; 0 without matches, 1 without objects."""
        return self.iou_sum / self.matched if self.matched else float(not self._objects)

    @property
    def recognition_quality(self) -> float:
        """RQ, the F1 of object detection, in [0, 1]; 1 without objects."""
        return self.matched / self._objects if self._objects else 1.0

    @property
    def quality(self) -> float:
        """PQ = SQ · RQ, in [0, 1]; 1 without objects."""
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
    """Match the objects of one image and class with an IoU above 0.5; such a match is unique.

    Parameters
    ----------
    prediction, truth : np.ndarray
        Bool mask or integer label map, of the same shape.

    Returns
    -------
    Panoptic
        Has ``quality``, ``segmentation_quality`` and ``recognition_quality``. Add the images of a data set.

    Raises
    ------
    InputError
        The shapes differ, or the objects are invalid.
    """
    table = _ObjectPairs.of(prediction, truth)
    good = table.iou > 0.5
    matched = int(good.sum())
    return Panoptic(matched, table.predicted.size - matched, table.true.size - matched, float(table.iou[good].sum()))


@dataclass(frozen=True, slots=True)
class _ObjectPairs:
    """Areas of all objects, and the pairs of objects that intersect."""

    true: np.ndarray  # (true objects,) areas
    predicted: np.ndarray  # (predicted objects,) areas
    g: np.ndarray  # (pairs,) index into `true`
    p: np.ndarray  # (pairs,) index into `predicted`
    intersection: np.ndarray  # (pairs,) pixels

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray) -> _ObjectPairs:
        predicted, true = label_instances(prediction), label_instances(truth)
        if predicted.shape != true.shape:
            raise InputError(
                f"the prediction has shape {predicted.shape}, the truth {true.shape}: give arrays of the same shape"
            )
        labels_g, area_g = np.unique(true[true > 0], return_counts=True)
        labels_p, area_p = np.unique(predicted[predicted > 0], return_counts=True)
        both = (true > 0) & (predicted > 0)
        g, p = np.searchsorted(labels_g, true[both]), np.searchsorted(labels_p, predicted[both])
        pairs, intersection = np.unique(np.stack([g, p]), axis=1, return_counts=True)
        return cls(area_g, area_p, pairs[0], pairs[1], intersection)

    @property
    def union(self) -> np.ndarray:
        return self.true[self.g] + self.predicted[self.p] - self.intersection

    @property
    def iou(self) -> np.ndarray:
        return self.intersection / self.union
