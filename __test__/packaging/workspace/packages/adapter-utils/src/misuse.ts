import { mirrorDirectory } from "./sandbox-managed-runtime.js";

// @ts-expect-error The package's own types are in force: a path is a string.
export const misuse = () => mirrorDirectory(1, "target");
