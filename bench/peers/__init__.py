"""What others recommend for durable calls; each runs in .venv-bench, in a process of its own."""
