"""Prove by simulation what formulas have sized: each class's tails, mixed accelerators."""
