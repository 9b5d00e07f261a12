"""The part of Faust that a worker uses: the app that supervises it, and the assignor protocol."""
