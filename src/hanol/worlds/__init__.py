"""hanol.worlds"""
