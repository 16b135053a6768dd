"""Recorders for other people's training loops. Importing it loads no framework; each recorder loads its own."""
