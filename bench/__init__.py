"""What feeler costs, beside what a user would run instead: `./run bench [NAME ...]`."""
