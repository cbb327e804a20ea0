"""Comparisons: runs over the same cases go in, differences with intervals come out."""
