"""How well scores agree with people: statistics, evaluation of a model on databases, comparison of models."""
