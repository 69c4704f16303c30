"""WHAT may be computed: plans, the allow-list, tracing and the interpreter."""
