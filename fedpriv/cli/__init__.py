"""The fedpriv command."""
