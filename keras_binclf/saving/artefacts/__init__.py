"""Export: a model as an artefact for other runtimes."""
