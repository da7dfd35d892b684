"""LightningModules: adaptation by rate and distortion, and the tasks that learn from y_hat."""

from nec.tasks.classification import SceneClassification
from nec.tasks.heads import AttentionHead, LinearHead
from nec.tasks.maps import TokenLinear
from nec.tasks.rate_distortion import RateDistortionAdaptation
from nec.tasks.segmentation import SemanticSegmentation

__all__ = [
    "AttentionHead",
    "LinearHead",
    "RateDistortionAdaptation",
    "SceneClassification",
    "SemanticSegmentation",
    "TokenLinear",
]
