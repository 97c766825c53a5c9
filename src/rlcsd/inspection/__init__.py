"""Measuring hint signals on a model's own rollouts, and what kind of token carries them."""
