"""Accounts: passwords, tokens, sessions, premium time and attempt limits."""
