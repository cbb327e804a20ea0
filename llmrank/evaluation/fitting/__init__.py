"""Scores of several parts and what was relevant go in; a fusion of them comes out, with what it is worth for users apart."""
