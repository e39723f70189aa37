"""How the command line ends where it does not succeed."""

USER_ERROR, INTERNAL_ERROR, INTERRUPTED = 2, 1, 130
