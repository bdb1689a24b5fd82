"""The bare repository on disk: refs, objects, quarantine, maintenance."""
