"""show.py LAYOUT: prints the digests of an image layout: its index, and of every image the manifest
and the layers.
"""

import hashlib
import json
import sys
from pathlib import Path

layout = Path(sys.argv[1])
index = (layout / "index.json").read_bytes()
print(f"index     sha256:{hashlib.sha256(index).hexdigest()}")
for image in json.loads(index)["manifests"]:
    print("manifest ", image["digest"])
    manifest = json.loads((layout / "blobs" / image["digest"].replace(":", "/")).read_bytes())
    for layer in manifest["layers"]:
        print("layer    ", layer["digest"], f"{layer['size'] / 1e6:.1f} MB", layer["mediaType"])
