"""The commands and their options, by the kind of work; each module has its commands in `COMMANDS`, by name."""
