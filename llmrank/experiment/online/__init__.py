"""Rankers compared on live users: who gets which, what is logged of it, interleaved lists, and what the log says."""
