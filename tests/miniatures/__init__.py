"""Miniature copies of databases in their true layout: a few files each, labels in the official form."""
