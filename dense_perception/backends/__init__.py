"""One way to run a graph each; the only room that imports a runtime."""
