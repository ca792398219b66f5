"""One file a verb of ``dense-perception``: its arguments, one call, what is printed."""
