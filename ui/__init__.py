"""The web app: one page with two views, Refine and Race, over one player."""
