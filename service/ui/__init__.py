"""Server-rendered web pages of gitstore; one module for each noun, whose views register their URLs.

A view authenticates and authorizes (`visits.enter`), parses, calls one action and renders. The pages do not
decide permissions: the server refuses an action even if its button is hidden. A push prints the URL
`/ui/workflows/<slug>/versions/<version>`.
"""

from service.ui import (  # noqa: F401 - they register their URLs
    compare,
    conflicts,
    editing,
    environments,
    projects,
    publications,
    releases,
    session,
    settings,
    sign_in,
    sources,
    subscriptions,
    versions,
    visits,
    workflows,
)
from service.ui.rendering import blueprint, is_page, prefix, refusal

__all__ = ["blueprint", "is_page", "prefix", "refusal"]
