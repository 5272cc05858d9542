"""Judging the model by pixels: which prompts it is asked, and what its pictures show."""
