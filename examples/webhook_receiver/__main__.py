"""`WEBHOOK_SECRET=whsec_… python -m examples.webhook_receiver [--port 9000]`."""

import argparse
import os
import sys

from examples.webhook_receiver.receiver import Receiver


def main() -> None:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description="Prints webhooks that it has verified. Secrets: WEBHOOK_SECRET.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9000)
    options = parser.parse_args()
    secrets = os.environ.get("WEBHOOK_SECRET", "").replace(",", " ").split()
    if not secrets:
        sys.exit("Set WEBHOOK_SECRET to what `orders webhooks add` has shown; several with commas between.")
    try:
        server = Receiver((options.host, options.port), secrets)
    except OSError as error:
        sys.exit(f"Cannot listen on {options.host}:{options.port}: {error.strerror}. Choose another --port.")
    with server as receiver:
        print(f"Listening on http://{options.host}:{receiver.server_port}/", flush=True)
        try:
            receiver.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
