"""One experiment a file: a dataclass of settings named after its file, as every component is."""
