// Kept under this name for the demo.

export * from "../benches/terminal.mjs";
