"""One model on one machine: imported, priced, planned, built, verified and raced."""
