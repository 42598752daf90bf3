"""`make production-local`: the topology of docker-compose.yml from programs of this machine."""
