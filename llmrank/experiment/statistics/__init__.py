"""Tests, intervals and confidence sequences for experiments: arrays go in, plain values come out."""
