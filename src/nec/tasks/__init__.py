"""LightningModules: adaptation by rate and distortion, and the tasks that learn from y_hat."""

from nec.tasks.classification import SceneClassification
from nec.tasks.heads import AttentionHead, LinearHead
from nec.tasks.maps import FCN, TokenConvolution, TokenLinear, TokenMLP
from nec.tasks.neighbours import NearestNeighbours
from nec.tasks.rate_distortion import RateDistortionAdaptation
from nec.tasks.ridge import TokenRidge
from nec.tasks.segmentation import SemanticSegmentation

__all__ = [
    "FCN",
    "AttentionHead",
    "LinearHead",
    "NearestNeighbours",
    "RateDistortionAdaptation",
    "SceneClassification",
    "SemanticSegmentation",
    "TokenConvolution",
    "TokenLinear",
    "TokenMLP",
    "TokenRidge",
]
