"""A sentence goes in, what its user wants comes out: wishes, titles named, dislikes and constraints."""

from llmrank.understanding.understand import Understanding, UnderstandingOptions, understand
from llmrank.wish import Constraint, Wish

__all__ = ["Constraint", "Understanding", "UnderstandingOptions", "Wish", "understand"]
