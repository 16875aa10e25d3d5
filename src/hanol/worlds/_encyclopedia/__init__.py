"""A seeded encyclopedia: pages that link to each other, and questions across them."""
