"""The databases of human scores: one small module each, all in the same shape (`database.Database`)."""
