"""Architecture search, priced by the compiler that deploys what is found."""
