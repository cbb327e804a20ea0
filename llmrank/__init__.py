"""llmrank: prompt-driven ranking. A history or a sentence and a candidate set go in, an order comes out."""

__version__ = "0.1.0"
