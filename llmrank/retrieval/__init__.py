"""Retrieval: embeddings and the prefilter, which keep the candidate list short before a model is asked."""
