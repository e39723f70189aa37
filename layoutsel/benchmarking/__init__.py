"""Interleaved comparison with other engines, for `layoutsel bench` and the suite in bench/."""
