"""The planning suite: a model plans with tools, the plan is carried out, and what comes of it is compared.

The form is that of ReWOO (Xu et al. 2023, arXiv 2305.18323): a planner writes all steps at once, each of them a tool
call whose result, `#E1`, `#E2`, …, later inputs may name; workers carry them out; a solver answers from the evidence.
"""
