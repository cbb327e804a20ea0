"""Strategies: one file a way to turn a request into prompts and their answers into a Ranking."""
