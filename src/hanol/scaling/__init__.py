"""hanol.scaling"""
