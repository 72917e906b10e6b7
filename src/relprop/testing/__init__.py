"""Checks for a user's own rules and operations, as relprop checks its own: docs/own-rules.md."""

from relprop.testing.dense import DenseLayer
from relprop.testing.operations import check_operation
from relprop.testing.rules import check_rule

__all__ = ["DenseLayer", "check_operation", "check_rule"]
