"""What is explained: a target takes the model's output to one score for each sample."""

from relprop.targets.classes import (
    Contrastive,
    Difference,
    Logit,
    LogOdds,
    OfClass,
    RunnerUp,
    Target,
    TargetLike,
    Weighted,
    as_target,
)
from relprop.targets.structured import At, Part, Region

__all__ = [
    "At",
    "Contrastive",
    "Difference",
    "LogOdds",
    "Logit",
    "OfClass",
    "Part",
    "Region",
    "RunnerUp",
    "Target",
    "TargetLike",
    "Weighted",
    "as_target",
]
