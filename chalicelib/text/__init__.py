"""The rules for names, and for showing one person's text to others."""
