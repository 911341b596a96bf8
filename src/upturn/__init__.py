"""Train generative models in rounds, and keep only the rounds that make them better."""
