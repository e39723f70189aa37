"""Evaluation of cost models on unseen models: splits, metrics, baselines, losses of plans."""
