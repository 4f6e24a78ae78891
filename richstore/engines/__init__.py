"""The engines: ordered bytes with transactions (`base` says what one must do)."""
