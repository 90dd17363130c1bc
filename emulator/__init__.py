"""AWS on this machine: MiniStack, patched to behave like AWS."""
