"""What runs the product in production, and tries of it."""
