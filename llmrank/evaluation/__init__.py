"""Evaluation: data sets, cases and metrics."""
