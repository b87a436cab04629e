"""Which upstream answers, and what its failures mean for the client."""
