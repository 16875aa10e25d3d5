"""hanol.claims"""
