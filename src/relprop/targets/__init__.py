"""What is explained: a target takes the model's output to one score for each sample.

Dataclasses among the names that this folder exports are stored with an explanation; another target is stored
as it prints.
"""

from relprop.targets import classes, given, structured
from relprop.targets.classes import *
from relprop.targets.given import *
from relprop.targets.structured import *

__all__: list[str] = []
__all__ += classes.__all__
__all__ += given.__all__
__all__ += structured.__all__
