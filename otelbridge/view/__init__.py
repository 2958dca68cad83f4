"""The terminal waterfall: a sink that keeps what a person wants to see of a migration, and its drawing."""
