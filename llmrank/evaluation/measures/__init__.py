"""Measures: rankings and cases go in, numbers with intervals come out."""
