"""Server-rendered web pages of gitstore; one module for each group of URLs.

A view authenticates and authorizes (`visit.enter`), parses, calls the core once and renders. The pages do not
decide permissions: the server refuses an action even if its button is hidden.
"""
