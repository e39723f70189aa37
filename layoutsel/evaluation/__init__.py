"""How good a cost model is on models that it has not seen: splits, measures, baselines, and what plans lose by it."""
