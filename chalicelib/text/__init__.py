"""What people write: which names they may have, and what of it is shown to others."""
