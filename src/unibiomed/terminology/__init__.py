"""Targets: what they are called and in which images they can be seen.

Everything that depends on what an image can show (training, calibration, evaluation, answers to a user) asks this
package, so that all of it agrees.
"""

from .nouns import Noun, find_noun, get_noun
from .resolution import Resolution, resolve
from .sites import FindingSite, finding_site, match_target
from .targets import Target, get_target, load_targets
from .visibility import absent_targets, can_show, image_regions

__all__ = [
    "FindingSite",
    "Noun",
    "Resolution",
    "Target",
    "absent_targets",
    "can_show",
    "find_noun",
    "finding_site",
    "get_noun",
    "get_target",
    "image_regions",
    "load_targets",
    "match_target",
    "resolve",
]
