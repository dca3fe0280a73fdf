"""Evaluation that can be trusted: suites of questions, predictors that answer them, scores that skip nothing."""
