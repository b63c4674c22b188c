"""The configuration of a site: models, YAML files and camera addresses."""
