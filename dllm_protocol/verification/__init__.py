"""Verification of signed headers by the light-client rules of CometBFT: pure, time comes as an argument.

predicates → one function for each rule; voting_power → how much of a set signed; verifier → Verdict.
"""
