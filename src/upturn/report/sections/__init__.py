"""The sections of a run report: one file each, found by its name, with a template of the same name beside it."""
