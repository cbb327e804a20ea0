"""Backends: one file a way to reach a model; around each of them retries, a concurrency limit and the answer cache."""
