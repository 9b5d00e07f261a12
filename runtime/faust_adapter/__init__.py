"""The parts of Faust that a worker uses: app, transport, assignor protocol."""
