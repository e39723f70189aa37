"""Engines that layoutsel is compared with; one file per engine."""
