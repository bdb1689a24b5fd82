"""What differs between two definitions, in structure, in words, and with secrets masked."""
