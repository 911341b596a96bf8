"""Vote modes, one file each: the file's name is the mode's name in recipes, databases and the HTTP API."""
