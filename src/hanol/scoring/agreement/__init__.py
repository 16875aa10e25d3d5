"""How far raters, judges and metrics agree with people, and what that says about a mean."""
