"""Running the stack on one machine, on the local AWS emulator."""
