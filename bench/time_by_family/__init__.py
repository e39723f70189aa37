"""Where the time of a network goes: by family of operators, on layoutsel and on its peers."""
