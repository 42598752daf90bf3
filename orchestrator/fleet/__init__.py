"""What is known of all agents' instances: the records that processes share, and how they change."""
