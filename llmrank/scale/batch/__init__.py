"""Ranking by a batch API: prompts go into files, their answers come back hours later, at half the price or out of vLLM."""

from llmrank.scale.batch.engine import PRICE_FACTOR, batch_rank
from llmrank.scale.batch.options import BatchOptions, BatchProgress

__all__ = ["PRICE_FACTOR", "BatchOptions", "BatchProgress", "batch_rank"]
