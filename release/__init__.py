"""What makes a release: sdist and wheel that anybody can make again, what they need, and what is known of that."""
