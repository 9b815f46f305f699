"""A person's own samples on disk: folders of files by class, or arrays."""
