// Kept under this name for the demo and older imports.

export * from "../__test__/support/tree.mjs";
