"""What is compared that runs on the product's own libraries."""
