"""A/B experiments with prompts: offline on frozen users, online on live ones, and the statistics of both.

What is named here is loaded when it is used.
"""
