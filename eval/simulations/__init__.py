"""Experiments whose truth is known go in; how often the library's tests and intervals are right about them comes out."""
