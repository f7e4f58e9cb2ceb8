"""Scoring of millions of files: one plan (list, skip what is done, decode, score, write), two engines."""
