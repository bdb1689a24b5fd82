"""The page: what people see of gitstore in a browser. Server-rendered; a file for each group of addresses.

A view authenticates and authorizes (`entering.enter`), parses, calls the core once and renders. Nothing here
decides what may be done: a button that is not offered is refused by the server all the same.
"""
