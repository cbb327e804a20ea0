"""Answers: what a model wrote goes in, a permutation of the candidates comes out; `parse.py` tells the way."""

from llmrank.answer.parse import ParsedAnswer, parse_answer

__all__ = ["ParsedAnswer", "parse_answer"]
