"""Data that others publish, read in one way for every input of an evaluation.

    a file or a data set → bytes in bounds (content) → rows (tables, hub) → those that were asked for (choice)
    → a prompt with category, identifier and answers (shapes, items)

`draws` takes some of the items, or cuts them into parts.
"""
