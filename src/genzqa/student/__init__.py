"""The fast student: a small convolutional network that learned a scorer's numbers from photos without human scores."""
