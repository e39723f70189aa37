"""Interleaved comparison with other engines: the code behind `layoutsel bench` and the suite in bench/."""
