"""What a sub-graph costs under a decision: measured, or estimated by its roofline. No TVM in here."""
