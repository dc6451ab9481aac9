"""The load bench: one TLS origin, several relays in front of it, the same loads through each."""
