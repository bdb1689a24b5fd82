"""One bare repository on disk: refs, objects, packs, and git as a child that looks after them."""
