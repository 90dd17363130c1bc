"""The deployed stack, over real sockets, on the local AWS emulator with IAM enforced."""
