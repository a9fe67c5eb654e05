// What is specific to macOS, on a volume that takes `Foo` and `foo` for one name, as most Macs' do.

import { useFoldingVolume } from "../support/folding-volume.mjs";

await useFoldingVolume();
await import("../macos.test.mjs");
