"""Other libraries' interfaces over the embedded store, for programs that move."""
