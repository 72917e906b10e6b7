"""Texts: their tokens explained, of what a language model says of them or writes after them."""

from relprop.text.answers import Answer
from relprop.text.explain import explain_text
from relprop.text.generation import Generation, explain_generation
from relprop.text.result import TextExplanation

__all__ = ["Answer", "Generation", "TextExplanation", "explain_generation", "explain_text"]
