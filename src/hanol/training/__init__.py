"""hanol.training"""
