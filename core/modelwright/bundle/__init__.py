"""The artefact that is deployed: a graph, a codec and what is known of both. Reading it needs no torch."""
