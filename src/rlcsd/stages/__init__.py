"""The stages of a training step as free functions: grade, hint, score. None of them needs a trainer."""
