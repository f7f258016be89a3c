"""What users do with a store: each function is one turn of one engine, in a process of its own."""
