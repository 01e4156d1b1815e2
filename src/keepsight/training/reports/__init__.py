"""Reports about a model for people who never saw one: Markdown for a pull request, one HTML file for everybody else.

``content`` gathers, ``words`` says it in plain language, ``document`` puts it in order; ``markdown`` and ``html`` write
the same document. Nothing in them is measured anew, and the HTML file asks no other machine for anything.
"""
