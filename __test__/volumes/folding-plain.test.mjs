// The same as in folding.test.mjs, on such a volume that knows only plain renames, as that of a network.

import { useFoldingVolume } from "../support/folding-volume.mjs";

await useFoldingVolume("--plain");
await import("../macos.test.mjs");
