"""The commands about models: generate, show, inspect, merge, convert."""
