"""What a signal from the user means, and how signals become training examples."""
