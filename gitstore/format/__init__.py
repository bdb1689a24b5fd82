"""The border of definitions: text in, a value under limits out, and a value written as text."""
