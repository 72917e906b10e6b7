"""The 2017 heatmapping.org tutorial: its computation, its networks' training, its pictures and its report."""

from relprop.tutorial.steps import STEPS, SUCCESSOR, BatchEpsilon, Maps, Tutorial, compute, load_networks

__all__ = ["STEPS", "SUCCESSOR", "BatchEpsilon", "Maps", "Tutorial", "compute", "load_networks"]
