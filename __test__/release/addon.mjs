// Replaces the release's modules for its own tests.

export * from "../../index.js";
