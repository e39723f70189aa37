"""One model on one machine: import, pricing, planning, building, verification and race."""
