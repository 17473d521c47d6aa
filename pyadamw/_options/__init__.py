"""The floor of options: what a user may pass, for a group and for a single parameter."""
