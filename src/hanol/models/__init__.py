"""hanol.models"""
