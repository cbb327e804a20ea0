"""Experiments on live users: who gets which variant, what is logged, and interleaved rankings."""
