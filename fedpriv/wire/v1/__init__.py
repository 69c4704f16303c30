"""Generated from proto/fedpriv/wire/v1; see make proto."""
