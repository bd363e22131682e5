"""A recorded run as something to hand on: a page that plays it, a film, tables. No gradio and no torch in here."""
