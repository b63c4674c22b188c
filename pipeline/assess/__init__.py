"""Shadow mode: what dasnet would do on a site's own cameras, measured without sending anything."""
