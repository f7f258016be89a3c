"""The pages, a module each: its routes, and what they show."""
