"""What a plan would do. `arms` and `effects` need no torch; `measured` retrains. The instant estimate is not built yet."""
