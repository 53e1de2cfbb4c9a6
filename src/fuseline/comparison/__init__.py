"""Two revisions' models, before against after."""
