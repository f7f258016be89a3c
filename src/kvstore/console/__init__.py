"""The web console: pages beside a cluster, to which it is an ordinary client.

``docs/console.md`` says what it offers, and whom it lets do what. Pages are made here, out of
templates that escape all they are given; the browser gets HTML, one style sheet and one small
script, all from here.
"""
