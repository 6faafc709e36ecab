"""mezzo beside its peers: what is run, how it alternates, what the figures must be, and how they are written down."""
