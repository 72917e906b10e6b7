"""The heatmapping.org tutorial of 2017: computation, pictures, report, and the training of its networks."""

from relprop.tutorial.steps import STEPS, SUCCESSOR, BatchEpsilon, Maps, Tutorial, compute, load_networks

__all__ = ["STEPS", "SUCCESSOR", "BatchEpsilon", "Maps", "Tutorial", "compute", "load_networks"]
