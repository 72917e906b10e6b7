"""Explaining texts: relevance of tokens for a language model's answer, or for the text that it generates."""

from relprop.text.answers import Answer
from relprop.text.explain import explain_text
from relprop.text.generation import Generation, explain_generation
from relprop.text.result import TextExplanation

__all__ = ["Answer", "Generation", "TextExplanation", "explain_generation", "explain_text"]
