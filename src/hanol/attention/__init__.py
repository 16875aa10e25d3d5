"""hanol.attention"""
