"""Pictures that tests explain."""

from pathlib import Path

PHOTOGRAPHS = Path(__file__).parents[2] / "examples" / "photographs"
