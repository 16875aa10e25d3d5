"""The ways an agent remembers: ReAct, Markov, ReSum, and several rollouts at once."""
