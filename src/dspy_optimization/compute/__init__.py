"""Numerical work on arrays: Pareto ranks, hypervolume, variation. Knows nothing of agents.

Throughout, smaller is better in every objective, and a row is one point.
"""
