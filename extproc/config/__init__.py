"""The settings: keys, defaults, the file they are read from, and errors for the user."""
