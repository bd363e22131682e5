"""What `nemodiff bench` measures of decoding, a benchmark a file, and the report they go into."""
