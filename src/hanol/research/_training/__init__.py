"""Training of research agents: the agent's own loop is the environment.

Rollouts are runs of `Researcher` with its parser, tools and memory, so that training and use
cannot drift apart.
"""
