"""What judges read, who speaks when, and the calls that this takes."""
