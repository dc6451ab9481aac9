"""The interop harness: one TLS origin, visitors, and the checks of one cell of the matrix."""
