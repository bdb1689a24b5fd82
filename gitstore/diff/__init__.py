"""The difference of two definitions: its structure, a summary, and the text diff."""
