"""AWS on this machine: MiniStack, and what makes it look like AWS."""
